"""`--optimizer` and `--lr_scheduler`, by class path as LightningCLI has them.

Parameters and rates are not among their settings: they come from the model, which may have several
groups with a rate each (`modules/optimized.py`).
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningArgumentParser, ReduceLROnPlateau
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from shortcut_lightning.cli.errors import UserError

# Packages that are no part of the usual installation -> the extra that brings them.
EXTRAS = {
    "bitsandbytes": "gpu",
    "lion_pytorch": "optimizers",
    "prodigyopt": "optimizers",
    "schedulefree": "optimizers",
}
FAMILIES: dict[str, tuple[type, ...]] = {
    "optimizer": (Optimizer,),
    "lr_scheduler": (LRScheduler, ReduceLROnPlateau),
}
_HOMES: dict[str, ModuleType] = {
    "--optimizer": torch.optim,
    "--lr_scheduler": torch.optim.lr_scheduler,
}
_SKIPPED = {"optimizer": {"params", "lr"}, "lr_scheduler": {"optimizer"}}
_RATES = "the rates are model.learning_rate, model.text_encoder_lr and model.token_lr"


def add_optimizers(parser: LightningArgumentParser) -> None:
    """The two options of every verb; a run's config.yaml has them, and only `fit` uses them."""
    for key, family in FAMILIES.items():
        parser.add_subclass_arguments(
            family, key, instantiate=False, fail_untyped=False, skip=_SKIPPED[key]
        )


def with_paths(argv: Sequence[str]) -> list[str]:
    """The command line with the short names of torch's classes as paths: where bitsandbytes is
    installed there are two of `SGD`, and the parser would take neither."""

    def path(key: str, name: str) -> str:
        home = _HOMES.get(key)
        known = home and name.isidentifier() and name in vars(home)
        return f"{home.__name__}.{name}" if home and known else name

    words = [word.partition("=") for word in argv]
    full = [f"{key}={path(key, value)}" if mark else key for key, mark, value in words]
    return [path(before, word) for before, word in zip(["", *argv], full, strict=False)]


def choose_optimizers(model: LightningModule, config: Any) -> None:
    """Hands what the user named to the model.

    Raises:
        UserError: the model has an optimiser of its own.
    """
    chosen = {key: config.get(key) for key in FAMILIES}
    if not any(chosen.values()):
        return
    from shortcut_lightning.modules.optimized import Optimized
    from shortcut_lightning.modules.optimizers import Named

    if not isinstance(model, Optimized):
        key = next(key for key, value in chosen.items() if value)
        raise UserError(f"{key}: {type(model).__name__} has its own; leave --{key} out")
    named = {
        key: value and Named(resolve_name(value.class_path), dict(value.get("init_args") or {}))
        for key, value in chosen.items()
    }
    model.choose(named["optimizer"], named["lr_scheduler"])


def wrong_class(key: str, given: str) -> str:
    """What to do about a class that cannot be had: the extra of a package that is not there, or the
    key that takes diffusers' schedules by their names; "" where it is something else."""
    package = given.partition(".")[0]
    if package in EXTRAS and not find_spec(package):
        return f"{given} is not installed: pip install 'shortcut-lightning[{EXTRAS[package]}]'"
    if key == "lr_scheduler" and given == given.lower():
        return f"'{given}' is no class; schedules by name are --model.lr_scheduler {given}"
    return ""


def no_such_setting(key: str, option: str) -> str:
    """Where a setting of the optimiser is found that the user looked for here; "" for others."""
    return f"{key}.{option}: {_RATES}" if (key, option) == ("optimizer", "lr") else ""
