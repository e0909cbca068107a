"""`--optimizer` and `--lr_scheduler` on the command line: python -m pytest tests/cli"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cli_fakes
import pytest
import torch

from shortcut_lightning.cli import main, optimizers


def kept(version: int) -> dict[str, dict[str, torch.Tensor]]:
    file = f"runs/small/version_{version}/checkpoints/last.ckpt"
    return torch.load(file, weights_only=True)


def test_a_run_by_class_path_runs_again_from_its_config_and_resumes(recipe: str) -> None:
    args = ["fit", "--config", recipe, "--optimizer", "SGD", "--optimizer.momentum", "0.9"]
    args += ["--lr_scheduler", "ExponentialLR", "--lr_scheduler.gamma", "0.5"]
    main(args)
    first = kept(0)
    group = first["optimizer_states"][0]["param_groups"][0]
    assert (group["momentum"], group["initial_lr"]) == (0.9, 1e-3)
    assert group["lr"] == pytest.approx(1e-3 / 16)
    main(["fit", "--config", "runs/small/version_0/config.yaml", "--name", "small"])
    main([*args, "--trainer.max_steps", "2"])
    main([*args, "--ckpt_path", "last"])
    for version in (1, 3):
        again = kept(version)["state_dict"]
        assert all(torch.equal(value, again[n]) for n, value in first["state_dict"].items())


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--optimizer=SDG"], ["optimizer: no class 'SDG'; did you mean 'SGD'?"]),
        (["--optimizer=SGD", "--optimizer.lr=1"], ["optimizer.lr: ", "model.learning_rate"]),
        (["--optimizer=SGD", "--optimizer.momentm=1"], ["SGD takes no 'momentm'", "'momentum'"]),
        (["--optimizer=SGD", "--optimizer.momentum=-1"], ["optimizer: SGD refuses", "momentum"]),
        (["--optimizer=SGD", "--model.adam.eight_bit=true"], ["model.adam.eight_bit is true"]),
        (["--lr_scheduler=StepLR"], ["StepLR needs 'step_size'", "--lr_scheduler.step_size"]),
        (["--lr_scheduler=cosine"], ["schedules by name are --model.lr_scheduler cosine"]),
        (
            ["--lr_scheduler=StepLR", "--lr_scheduler.step_size=0"],
            ["lr_scheduler: StepLR refuses its settings"],
        ),
    ],
)
def test_mistakes_cost_a_line(
    args: list[str], parts: list[str], recipe: str, mistake: Callable[..., str]
) -> None:
    message = mistake("fit", "--config", recipe, *args)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("package", sorted(optimizers.EXTRAS))
def test_what_is_not_installed_is_named_with_its_extra(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    extra = optimizers.EXTRAS[package]
    assert optimizers.wrong_class("optimizer", f"{package}.Some") == (
        f"{package}.Some is not installed: pip install 'shortcut-lightning[{extra}]'"
    )


def test_a_missing_extra_on_the_command_line(recipe: str, mistake: Callable[..., str]) -> None:
    if find_spec("prodigyopt"):
        pytest.skip("the extra is installed")
    message = mistake("fit", "--config", recipe, "--optimizer", "prodigyopt.Prodigy")
    assert "optimizer: prodigyopt.Prodigy is not installed: pip install" in message


def test_another_optimizer_cannot_go_on(recipe: str, mistake: Callable[..., str]) -> None:
    main(["fit", "--config", recipe, "--trainer.max_steps", "2"])
    message = mistake("fit", "--config", recipe, "--optimizer", "SGD", "--ckpt_path", "last")
    assert "was trained with AdamW, this run has SGD" in message


def test_a_model_with_an_optimizer_of_its_own(
    tmp_path: Path, mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = cli_fakes.write_config(tmp_path)
    message = mistake("fit", "--config", config, "--optimizer", "SGD")
    assert "optimizer: Line has its own; leave --optimizer out" in message
