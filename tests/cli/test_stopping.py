"""SIGINT and SIGTERM, numbers that are none, and runs that are not the same:
`pytest tests/cli/test_stopping.py`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cli_fakes
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.testing._internal.two_tensor import TwoTensor

from shortcut_lightning import stopping
from shortcut_lightning.attacks.progress import Kept, Progress
from shortcut_lightning.cli import main
from shortcut_lightning.cli.keep_last import WholeFiles

REPOSITORY = Path(__file__).parents[2]
FIRST = Path("runs/small/version_0/checkpoints/last.ckpt")


class Sent(Callback):
    """Sends this process a signal after a step, while the batch is not quite done."""

    def __init__(self, number: int = 15, after: int = 2) -> None:
        self.number, self.after, self.sent = number, after, False

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.after and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)

    def on_test_start(self, trainer: Trainer, *_: Any) -> None:
        if self.after < 0:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """As in a terminal: jobs in the background of a script ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def code_of(*args: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(args))
    assert isinstance(end.value.code, int)
    return end.value.code


def sent(number: int, after: int) -> list[str]:
    one = ["--trainer.callbacks+=test_stopping.Sent", f"--trainer.callbacks.number={number}"]
    return [*one, f"--trainer.callbacks.after={after}"]


@pytest.mark.parametrize(
    ("number", "code", "accumulate", "step"),  # the fake's rows begin anew with an epoch alone
    [(signal.SIGINT, 130, 1, 4), (signal.SIGTERM, 143, 3, 2)],
)
def test_a_stopped_fit_goes_on_where_it_stood(
    number: int,
    code: int,
    accumulate: int,
    step: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit = ["fit", "-c", cli_fakes.write_config(tmp_path), "--evaluate_after_fit=false"]
    fit += ["--trainer.max_steps=8", f"--trainer.accumulate_grad_batches={accumulate}"]
    main([*fit, "--name=straight"])
    straight = cli_fakes.Line.seen["weight"]
    assert code_of(*fit, *sent(number, step)) == code
    said = capsys.readouterr().err
    assert f"step {step} is kept in {FIRST}; to go on: the same command with" in said
    assert "Traceback" not in said
    assert torch.load(FIRST, weights_only=True)["global_step"] == step
    main([*fit, "--ckpt_path=last"])
    torch.testing.assert_close(cli_fakes.Line.seen["weight"], straight, rtol=0, atol=0)


def test_a_stop_is_kept_beside_checkpoints_of_the_user(tmp_path: Path) -> None:
    fit = ["fit", "-c", cli_fakes.write_config(tmp_path), "--trainer.callbacks+=ModelCheckpoint"]
    assert code_of(*fit, *sent(signal.SIGTERM, 3)) == 143
    assert torch.load(FIRST, weights_only=True)["global_step"] == 3


def test_a_stop_in_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "-c", cli_fakes.write_config(tmp_path)]
    assert code_of(*fit, *sent(signal.SIGINT, -1)) == 130
    assert "step 4 is kept" in capsys.readouterr().err
    assert code_of("test", *fit[1:], *sent(signal.SIGINT, -1)) == 130
    assert "the same command starts again" in capsys.readouterr().err


def test_minutes_keep_a_step_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shortcut_lightning.cli.keep_last import KeepLast

    saved: list[int] = []
    monkeypatch.setattr(KeepLast, "_save", lambda self, trainer: saved.append(trainer.global_step))
    trainer = Trainer(
        max_steps=3, accelerator="cpu", callbacks=[KeepLast(minutes=1e-9)], logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(cli_fakes.Line(), cli_fakes.Points())
    assert saved[:3] == [1, 2, 3]


def test_an_attack_keeps_the_step_it_was_at(tmp_path: Path) -> None:
    def steps(until: int) -> list[int]:
        done, generator, sum_ = [], torch.Generator().manual_seed(0), Kept(0)
        for step in Progress(tmp_path / "attack").loop(6, generator, sum_):
            if step == until:
                os.kill(os.getpid(), signal.SIGTERM)
            sum_.value += 1
            done.append(step)
        assert sum_.value == 6
        return done

    with stopping.listening(), pytest.raises(stopping.Stopped) as end:
        steps(until=3)
    assert end.value.code == 143
    assert steps(until=-1) == [4, 5]


LISTENS = """
import subprocess, sys, time
from shortcut_lightning import stopping
with stopping.listening():
    if sys.argv[1:]:
        child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
        print(child.pid, flush=True)
    else:
        stopping.hold()
        print("held", flush=True)
    time.sleep(60)
"""


def listener(*args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", LISTENS, *args],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("chained", [True, False])
def test_an_error_that_a_library_makes_of_a_stop_is_a_stop(
    chained: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when a signal comes while a library imports another."""

    def imports(argv: list[str]) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except BaseException as stop:
            raise ImportError("cannot import name") from stop if chained else None

    monkeypatch.setattr("shortcut_lightning.cli._answer", imports)
    assert code_of("fit") == 130
    said = capsys.readouterr().err
    assert said == (
        "\nstopped by SIGINT: the same command goes on from what it keeps, or starts again\n"
    )
    monkeypatch.setattr("shortcut_lightning.cli._answer", lambda argv: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        main(["fit"])


class Dropped:
    """Python passes over what is raised in here."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_was_passed_over_comes_again_but_not_into_what_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = []

    def goes_on(argv: list[str]) -> None:
        Dropped()
        try:
            time.sleep(60)
        finally:
            time.sleep(0.5)
            ended.append(time.monotonic())

    monkeypatch.setattr(stopping, "_AGAIN", 0.1)
    monkeypatch.setattr("shortcut_lightning.cli._answer", goes_on)
    began = time.monotonic()
    assert code_of("fit") == 143
    assert 0.5 < ended[0] - began < 50


def test_a_second_signal_ends_at_once_and_an_echo_does_not() -> None:
    held = listener()
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    for _ in range(2):  # as `timeout` does, to the process and to its group
        held.send_signal(signal.SIGINT)
        time.sleep(0.1)
    time.sleep(0.5)
    assert held.poll() is None
    held.send_signal(signal.SIGINT)
    assert held.wait(5) == 130


def test_what_the_program_started_ends_with_it() -> None:
    parent = listener(LISTENS.replace("sys.argv[1:]", "False"))
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "held\n"
    parent.kill()
    parent.wait()
    until = time.monotonic() + 5
    while time.monotonic() < until and running(child):
        time.sleep(0.05)
    assert not running(child)


def running(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_loss_that_is_not_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "-c", cli_fakes.write_config(tmp_path), "--model.learning_rate=1e30"]
    assert code_of(*fit) == 1
    said = capsys.readouterr().err
    assert "error: step 2, learning rate 1e+30: the loss is inf. Try a lower learning rate" in said
    assert "there is no checkpoint yet" in said
    assert not FIRST.exists()


class Broken(Callback):
    """A weight that is no number, after a loss that still was one."""

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        if trainer.global_step == 3:
            module.layer.weight.data.fill_(float("nan"))


def test_nan_takes_no_checkpoints_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "-c", cli_fakes.write_config(tmp_path), "--trainer.callbacks=[]"]
    fit += ["--trainer.callbacks+=test_stopping.Broken", "--trainer.callbacks+=ModelCheckpoint"]
    fit += ["--trainer.callbacks.every_n_train_steps=1", "--trainer.callbacks.filename=mine"]
    assert code_of(*fit) == 1
    said = capsys.readouterr().err
    assert "error: step 3, learning rate 0.001: weights are NaN or infinite" in said
    kept = torch.load(FIRST.with_name("mine.ckpt"), weights_only=True)
    assert kept["global_step"] == 2


def test_only_the_same_pictures_prompts_and_model_are_resumed(
    small_sd: Path, tmp_path: Path, mistake: Callable[..., str]
) -> None:
    fit = ["fit", "--model=DreamBooth", f"--model.pretrained_model_name_or_path={small_sd}"]
    fit += ["--data=PersonalizationDataModule", "--data.instance_data_dir=pocket:0"]
    fit += ["--data.instance_prompt=a photo of sks dog", "--evaluate_after_fit=false"]
    fit += ["--data.train_batch_size=1", "--trainer.accelerator=cpu", "--trainer.max_steps=1"]
    fit += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    main(fit)
    again = [*fit, "--ckpt_path=last", "--trainer.max_steps=2"]
    other = [*again, "--data.instance_data_dir=pocket:1", "--data.attack=RandomNoise"]
    assert "was trained with another data.instance_data_dir and data.attack." in mistake(*other)
    renamed = [*again, "--data.instance_prompt=a photo of sks person"]
    said = mistake(*renamed)
    assert (
        "another data.instance_prompt ('a photo of sks dog', now 'a photo of sks person')" in said
    )
    assert "--name NEW and no --ckpt_path" in said
    main([*again, "--model.learning_rate=1e-5", "--data.train_batch_size=2"])
    main([*renamed, "--trainer.max_steps=3", "--resume_other=true"])
    last = sorted(Path("runs/run").glob("*/checkpoints/last.ckpt"))[-1]
    assert torch.load(last, weights_only=True)["global_step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_stop_at_the_same_step(number: int, tmp_path: Path) -> None:
    config = cli_fakes.write_config(tmp_path)
    args = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=1000000"]
    path = os.pathsep.join([str(Path(__file__).parent), str(REPOSITORY)])
    running_fit = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), "fit", "-c", config, *args,
         "--trainer.log_every_n_steps=1"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    table = tmp_path / "runs/small/version_0/metrics.csv"
    # So far that the ranks have agreed on what is asked for from outside, too.
    while running_fit.poll() is None and (
        not table.exists() or len(table.read_text().splitlines()) < 15
    ):
        time.sleep(0.2)
    running_fit.send_signal(number)
    said = running_fit.communicate(timeout=120)[1]
    assert running_fit.returncode == 128 + number, said
    assert "is kept in" in said
    assert "Traceback" not in said
    assert (tmp_path / FIRST).is_file()


def test_tensors_that_wrap_others_are_read_from_checkpoints(tmp_path: Path) -> None:
    """As torchao's moments of 8 bits do."""
    moment = TwoTensor(torch.ones(2), torch.zeros(2))
    WholeFiles().save_checkpoint({"moment": moment}, tmp_path / "last.ckpt")
    with torch.serialization.safe_globals([TwoTensor]):
        found = WholeFiles().load_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(found["moment"].a, moment.a)
    assert torch.equal(found["moment"].b, moment.b)
