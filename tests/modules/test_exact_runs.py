"""Interrupted and resumed, or on two processes: the same run. python -m pytest tests/modules."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from shortcut_lightning.callbacks.ema import EMA
from shortcut_lightning.callbacks.export import Export
from shortcut_lightning.cli.keep_last import KeepLast
from shortcut_lightning.data.datamodule import PersonalizationDataModule
from shortcut_lightning.data.settings import Passes, Sampled
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import AdapterShape, Sampling


def parts(
    model: Path, photos: Path, *, batch_size: int = 1, **options: Any
) -> tuple[DreamBooth, PersonalizationDataModule]:
    pl.seed_everything(7, verbose=False)
    module = DreamBooth(
        str(model),
        learning_rate=1e-3,
        lr_scheduler="cosine",
        sampling=Sampling(num_inference_steps=2),
        **options,
    )
    data = PersonalizationDataModule(
        instance_data_dir=str(photos),
        instance_prompt="a photo of sks dog",
        class_prompt="a photo of dog",
        with_prior_preservation=True,
        num_class_images=4,
        training=Passes(repeats=2),
        train_batch_size=batch_size,
        evaluation=Sampled(images_per_prompt=3, batch_size=2),
    )
    return module, data


def trainer(folder: Path, steps: int, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "max_steps": steps,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
            "callbacks": list(callbacks),
        }
        | options
    )


def learned(module: DreamBooth) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "options", [{}, {"method": "lora", "rank": 2, "adapter": AdapterShape(dropout=0.2)}]
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resuming_at_any_step_ends_with_the_same_bits(
    accumulate: int, options: dict[str, Any], small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    steps = 9 if accumulate == 1 else 4  # an epoch is six batches: the end lies in the second
    saver = ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_last=False
    )
    module, data = parts(small_sd, photos, **options)
    trainer(tmp_path, steps, EMA(0.9), saver, accumulate_grad_batches=accumulate).fit(module, data)
    whole = learned(module)
    for stopped in range(1, steps, 2 if accumulate == 1 else 1):
        module, data = parts(small_sd, photos, **options)
        trainer(tmp_path, steps, EMA(0.9), accumulate_grad_batches=accumulate).fit(
            module, data, ckpt_path=tmp_path / f"step={stopped}.ckpt"
        )
        for name, value in learned(module).items():
            assert torch.equal(value, whole[name]), (stopped, name)


class StopAt(pl.Callback):
    """Stops after a step, whatever was planned."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step


def test_a_run_that_was_stopped_goes_on_from_the_weights_in_training(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    module, data = parts(small_sd, photos)
    trainer(tmp_path, 6, EMA(0.9), KeepLast()).fit(module, data)
    whole = learned(module)
    module, data = parts(small_sd, photos)
    stopped = trainer(tmp_path, 6, StopAt(3), EMA(0.9), KeepLast(), logger=CSVLogger(tmp_path))
    stopped.fit(module, data)
    file = Path(stopped.log_dir or "") / "checkpoints" / "last.ckpt"
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]
    module, data = parts(small_sd, photos)
    trainer(tmp_path, 6, EMA(0.9)).fit(module, data, ckpt_path=file)
    assert all(torch.equal(value, whole[name]) for name, value in learned(module).items())


class Exported(pl.Callback):
    """What an export right after training would hold."""

    weights: ClassVar[dict[str, torch.Tensor]] = {}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        Exported.weights = learned(pl_module)


def test_a_run_resumed_at_its_end_exports_the_average_again(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    def fit(*callbacks: pl.Callback, file: Path | None = None) -> Path:
        module, data = parts(small_sd, photos)
        # Before the average, as a callback added to a recipe comes last.
        run = trainer(tmp_path, 3, Exported(), *callbacks, logger=CSVLogger(tmp_path))
        run.fit(module, data, ckpt_path=file)
        return Path(run.log_dir or "") / "checkpoints" / "last.ckpt"

    file = fit(EMA(0.5), KeepLast())
    first = Exported.weights
    again = fit(EMA(0.5), KeepLast(), file=file)
    assert all(torch.equal(value, first[name]) for name, value in Exported.weights.items())
    assert again != file
    assert again.read_bytes() == file.read_bytes()
    raw = torch.load(file, weights_only=True)["weights_in_training"]
    assert any(not torch.equal(raw[name], value) for name, value in first.items())


def test_a_checkpoint_tests_the_average_that_fit_ended_with(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    module, data = parts(small_sd, photos)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=0, save_last=True)
    trainer(tmp_path, 4, EMA(0.9), saver).fit(module, data)
    ended = learned(module)
    module, data = parts(small_sd, photos)
    tester = trainer(tmp_path, 4)  # without the callback
    tester.test(module, datamodule=data, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert all(torch.equal(value, ended[name]) for name, value in learned(module).items())


class Leave(pl.Callback):
    """Writes each rank's weights and sampled images where the test finds them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DreamBooth)
        torch.save(learned(pl_module), self.folder / f"rank{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_processes_train_what_one_does(small_sd: Path, photos: Path, tmp_path: Path) -> None:
    if "fake_gpu" in sys.modules:
        pytest.skip("autograd with a device written in Python cannot be forked: -m slow alone")
    module, data = parts(small_sd, photos, batch_size=2)
    start = learned(module)
    trainer(tmp_path, 4, Leave(tmp_path), enable_checkpointing=False).fit(module, data)
    alone = torch.load(tmp_path / "rank0.pt", weights_only=True)
    module, data = parts(small_sd, photos, batch_size=1)
    both = trainer(
        tmp_path,
        4,
        Leave(tmp_path),
        Export(),
        enable_checkpointing=False,
        logger=CSVLogger(tmp_path, "both", ""),
        devices=2,
        strategy="ddp_fork",
    )
    both.fit(module, data)
    assert (tmp_path / "both" / "export" / "model" / "model_index.json").is_file()
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in alone)
    # Sums over the batch are taken in another order, nothing else: against the way gone, little.
    error = sum(((ranks[0][name] - alone[name]) ** 2).sum() for name in alone)
    way = sum(((start[name] - alone[name]) ** 2).sum() for name in alone)
    assert error < 1e-6 * way


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {modules!r}]
from pathlib import Path
from lightning.pytorch.callbacks import ModelCheckpoint
from test_exact_runs import parts, trainer
saver = ModelCheckpoint({folder!r}, every_n_train_steps=1, save_top_k=0, save_last=True)
module, data = parts(Path({model!r}), Path({photos!r}))
trainer(Path({folder!r}), 400, saver).fit(module, data)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    tests = Path(__file__).parent
    script = SCRIPT.format(
        tests=str(tests.parent),
        modules=str(tests),
        folder=str(tmp_path),
        model=str(small_sd),
        photos=str(photos),
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([sys.executable, "-c", script], env=environment)
    last = tmp_path / "last.ckpt"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
        if last.exists():
            time.sleep(0.5)
            break
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "the run must be killed while it is at work"
    reached = torch.load(last, weights_only=True)["global_step"]
    goal = reached + 2

    def result(start: Path | None) -> dict[str, torch.Tensor]:
        module, data = parts(small_sd, photos)
        # The cosine schedule looks at the planned end, so all runs plan the same one.
        run = trainer(tmp_path, 400, StopAt(goal), enable_checkpointing=False)
        run.fit(module, data, ckpt_path=start)
        return learned(module)

    resumed, whole = result(last), result(None)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
