"""Resuming, where the configuration wins: `pytest tests/cli/test_resume.py`."""

from collections.abc import Callable
from pathlib import Path

import cli_fakes
import pytest
import torch

from shortcut_lightning.cli import main

LAST = "runs/small/version_0/checkpoints/last.ckpt"


@pytest.fixture
def started(tmp_path: Path) -> list[str]:
    """A run of 4 steps, one epoch; the arguments that continue it to 8."""
    args = ["fit", "--config", cli_fakes.write_config(tmp_path), "--evaluate_after_fit=false"]
    main(args)
    return [*args, "--trainer.max_steps=8"]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_unchanged_settings_continue_exactly(started: list[str], accumulate: int) -> None:
    started += [f"--trainer.accumulate_grad_batches={accumulate}", "--model.warmup=true"]
    main([*started, "--name=straight"])
    straight = cli_fakes.Line.seen
    main([*started, "--trainer.max_steps=4"])
    main([*started, "--ckpt_path=runs/small/version_1/checkpoints/last.ckpt"])
    torch.testing.assert_close(cli_fakes.Line.seen["weight"], straight["weight"], rtol=0, atol=0)


def test_a_new_learning_rate_takes_effect(
    started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main([*started, f"--ckpt_path={LAST}", "--model.learning_rate=0.5"])
    assert cli_fakes.Line.seen["lr"] == 0.5
    err = capsys.readouterr().err
    assert "resuming with lr 0.5, as configured (the checkpoint had 0.001)" in err


def test_a_new_learning_rate_rescales_its_schedule(tmp_path: Path) -> None:
    args = ["fit", "--config", cli_fakes.write_config(tmp_path), "--model.warmup=true"]
    args += ["--evaluate_after_fit=false"]
    main(args)
    main([*args, "--trainer.max_steps=8", "--model.learning_rate=0.5", f"--ckpt_path={LAST}"])
    assert cli_fakes.Line.seen["lr"] == pytest.approx(0.5 / 9)  # lr / (step + 1)


def test_last_is_the_newest_of_the_name(started: list[str]) -> None:
    main([*started, "--ckpt_path=last"])
    second = torch.load("runs/small/version_1/checkpoints/last.ckpt", weights_only=True)
    assert second["global_step"] == 8
    main([*started, "--ckpt_path=last", "--trainer.max_steps=12"])
    third = torch.load("runs/small/version_2/checkpoints/last.ckpt", weights_only=True)
    assert third["global_step"] == 12


def test_last_before_any_run(
    tmp_path: Path, mistake: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = cli_fakes.write_config(tmp_path)
    # Testing untrained weights in silence would be worse than stopping.
    assert "no runs/small/*/checkpoints/last.ckpt" in mistake(
        "test", "-c", config, "--ckpt_path=last"
    )
    main(["fit", "-c", config, "--ckpt_path=last"])  # a job that is started again and again
    assert "starting from the beginning" in capsys.readouterr().err


def test_a_misspelt_checkpoint(started: list[str], mistake: Callable[..., str]) -> None:
    wrong = LAST.replace("last", "lst")
    assert f"did you mean '{LAST}'?" in mistake(*started, f"--ckpt_path={wrong}")
