"""Files given as --ckpt_path that are none: python -m pytest tests/cli/test_checkpoints.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cli_fakes
import pytest
import torch

from shortcut_lightning.cli import main

Checkpoint = dict[Any, Any]


@pytest.fixture
def finished(tmp_path: Path) -> tuple[list[str], Checkpoint]:
    """A run of 4 steps: the arguments that continue it from bad.ckpt, and its checkpoint."""
    args = ["--config", cli_fakes.write_config(tmp_path), "--trainer.max_steps=8"]
    main(["fit", *args, "--evaluate_after_fit=false", "--trainer.max_steps=4"])
    found = torch.load("runs/small/version_0/checkpoints/last.ckpt", weights_only=True)
    return [*args, "--ckpt_path=bad.ckpt"], found


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path(self.path),)


def test_nothing_is_unpickled(
    finished: tuple[list[str], Checkpoint], mistake: Callable[..., str]
) -> None:
    for content in ({"state_dict": Touch(Path("PWNED"))}, Touch(Path("PWNED"))):
        torch.save(content, "bad.ckpt")
        for verb in ("fit", "test", "predict"):
            assert "more than weights" in mistake(verb, *finished[0])
    assert not Path("PWNED").exists()


FOREIGN = (
    (b"", "is empty"),
    (b"hello, this is no checkpoint", "no file of weights"),
    (b"PK\x03\x04" + bytes(99), "damaged, truncated"),
    ({}, "no proper state_dict"),
    ([1], "holds a list"),
    ({"state_dict": {"weight": torch.ones(1)}}, "no proper pytorch-lightning_version"),
)


def test_foreign_files_are_one_line(
    finished: tuple[list[str], Checkpoint], mistake: Callable[..., str]
) -> None:
    for number, (content, message) in enumerate(FOREIGN):
        if isinstance(content, bytes):
            Path("bad.ckpt").write_bytes(content)
        else:
            torch.save(content, "bad.ckpt")
        said = mistake(("fit", "test")[number % 2], *finished[0])
        assert message in said
        assert "'bad.ckpt'" in said
        assert "--ckpt_path" in said


def test_a_checkpoint_cut_off_anywhere_is_one_line(
    finished: tuple[list[str], Checkpoint], mistake: Callable[..., str]
) -> None:
    whole = Path("runs/small/version_0/checkpoints/last.ckpt").read_bytes()
    for length in (1, 8, 64, len(whole) // 2, len(whole) - 1):
        Path("bad.ckpt").write_bytes(whole[:length])
        assert "'bad.ckpt' is" in mistake("fit", *finished[0])


KEYS = ("state_dict", "epoch", "global_step", "loops", "callbacks", "optimizer_states")


def test_a_checkpoint_with_a_part_gone_or_strange_is_one_line(
    finished: tuple[list[str], Checkpoint], mistake: Callable[..., str]
) -> None:
    args, found = finished
    for key in (*KEYS, "pytorch-lightning_version", "lr_schedulers"):
        torch.save({**found, key: None}, "bad.ckpt")
        assert f"no proper {key}; give" in mistake("fit", *args)
    for key, value in {"loops": {"fit_loop": {"odd": []}}, "optimizer_states": [[]]}.items():
        torch.save({**found, key: value}, "bad.ckpt")
        assert "--ckpt_path" in mistake("fit", *args)


def test_going_on_without_the_optimizer_is_refused(
    finished: tuple[list[str], Checkpoint], mistake: Callable[..., str]
) -> None:
    args, found = finished
    torch.save(found | {"optimizer_states": []}, "bad.ckpt")
    assert "holds the state of 0 optimisers, this run has 1" in mistake("fit", *args)


def test_weights_that_are_no_numbers_are_named(
    finished: tuple[list[str], Checkpoint], capsys: pytest.CaptureFixture[str]
) -> None:
    args, found = finished
    broken = {name: each / 0 for name, each in found["state_dict"].items()}
    torch.save(found | {"state_dict": broken}, "bad.ckpt")
    for verb in ("fit", "test"):
        with pytest.raises(SystemExit) as end:
            main([verb, *args])
        assert end.value.code == 1
        assert "NaN or infinite" in capsys.readouterr().err


def test_best_is_no_file(
    finished: tuple[list[str], Checkpoint], mistake: Callable[..., str]
) -> None:
    args = [*finished[0][:-1], "--ckpt_path=best"]
    for verb in ("fit", "test"):
        assert "give the file, or 'last'" in mistake(verb, *args)
