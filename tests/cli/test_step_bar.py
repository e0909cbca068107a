"""The bar of a training counts steps: pytest this file."""

import re

import pytest
from cli_fakes import write_config

from shortcut_lightning.cli import main

# Two batches an epoch: Lightning's own bar would begin anew three times and say `Epoch 2/-2`.
STEPS = 6


def bars(said: str) -> list[str]:
    """Everything that the bar showed, one state after another."""
    return [part.strip() for part in re.split(r"[\r\n]", said) if "Training" in part]


def test_one_bar_over_steps_with_few_digits(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, max_steps=STEPS, enable_progress_bar=True)
    main(["fit", "--config", config, "--data.side", "8", "--evaluate_after_fit", "false"])
    said = capsys.readouterr().out
    assert "Epoch" not in said
    shown = bars(said)
    assert f"{STEPS}/{STEPS}" in shown[-1]
    assert not re.search(r"\d\.\d{5,}", shown[-1])
    assert "v_num" not in said


def test_a_resumed_bar_begins_where_the_training_stood(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, max_steps=STEPS, enable_progress_bar=True)
    fit = ["fit", "--config", config, "--evaluate_after_fit", "false", "--ckpt_path", "last"]
    main(fit)
    capsys.readouterr()
    main([*fit, "--trainer.max_steps", str(STEPS + 3)])
    shown = bars(capsys.readouterr().out)
    assert f"{STEPS}/{STEPS + 3}" in shown[0]
    assert f"{STEPS + 3}/{STEPS + 3}" in shown[-1]
