"""Numbers outside the ranges that arguments declare, refused by their key before anything is built.

The parser knows types and not ranges (`shortcut_lightning.ranges`), so its result is walked here.
"""

import argparse
import re
from collections.abc import Iterator
from datetime import timedelta
from pkgutil import resolve_name
from typing import Annotated, Any

from jsonargparse import DefaultHelpFormatter, Namespace

from shortcut_lightning.cli.errors import UserError
from shortcut_lightning.cli.explain import classes_in
from shortcut_lightning.ranges import (
    Between,
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    declared,
    refused,
)

_WHOLE = 2**63  # what counters, tensors and sequences hold lies below

# Of Lightning's numbers those that it does not look at itself: a negative norm to clip to would
# train upwards, a count of 0 ends in a division, a negative time is over at once.
_LIGHTNING: dict[str, Any] = {
    "gradient_clip_val": NotNegative | None,
    "accumulate_grad_batches": Count,
    "check_val_every_n_epoch": Count | None,
    "log_every_n_steps": CountOrNone,
    "min_steps": CountOrNone | None,
    "min_epochs": CountOrNone | None,
    "num_sanity_val_steps": Annotated[int, Between(-1)] | None,
    "val_check_interval": (
        Annotated[int, Between(0, open="least")] | Positive | str | timedelta | dict[str, int]
    )
    | None,
    "max_time": str | timedelta | dict[str, CountOrNone] | None,
}


def lend_ranges(parser: argparse.ArgumentParser) -> None:
    """Gives the trainer's options the ranges that Lightning does not declare."""
    for action in parser._actions:
        if kind := _LIGHTNING.get(action.dest.removeprefix("trainer.")):
            action._typehint = kind  # type: ignore[attr-defined]


def refuse_numbers(parser: argparse.ArgumentParser, config: Namespace) -> None:
    """Raises UserError for the first number in what `parser` read that is outside its range, and
    for numbers and texts that no range declares and nothing can hold."""
    for action in parser._actions:
        annotation = getattr(action, "_typehint", None)
        for said in _refused(annotation, config.get(action.dest), action.dest):
            raise UserError(said)
    for where, value in _values(config):
        if isinstance(value, int) and not -_WHOLE <= value < _WHOLE:
            raise UserError(f"{where} is {value:.12g}; whole numbers end at 2^63 - 1")
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{where}: {value!r} has a NUL in it, which no name and no text may")


def _values(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a configuration with its key, without `init_args`."""
    inner = vars(node) if isinstance(node, Namespace) else node
    inner = dict(enumerate(inner)) if isinstance(inner, list | tuple) else inner
    if not isinstance(inner, dict):
        yield where, inner
        return
    for name, value in inner.items():
        yield from _values(value, where if name == "init_args" else f"{where}.{name}".lstrip("."))


def _refused(annotation: Any, node: Any, where: str) -> Iterator[str]:
    """A sentence for each number of a setting, and of the classes that it names, that is refused.
    The `init_args` of the file are left out of its key, as on the command line."""
    inner = dict(enumerate(node)) if isinstance(node, list) else node
    if isinstance(inner, dict) and any(isinstance(item, Namespace) for item in inner.values()):
        for name, item in inner.items():
            yield from _refused(annotation, item, f"{where}.{name}")
    elif isinstance(node, Namespace):
        if "class_path" in node:
            kinds, settings = [resolve_name(node.class_path)], node.get("init_args")
        else:  # a dataclass of settings
            kinds, settings = list(classes_in(annotation)), node
        arguments = {name: each for kind in kinds for name, each in declared(kind).items()}
        for name, value in vars(settings or Namespace()).items():
            if name in arguments:
                yield from _refused(arguments[name].annotation, value, f"{where}.{name}")
    else:
        yield from (each.said(where) for each in refused(annotation, node))


class Help(DefaultHelpFormatter):
    """Shows `int at least 1` for a number with a range."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        kind = super()._get_type_str(action)
        return kind and re.sub(r"Annotated\[(\w+), ((?:\[[^\]]*\]|[^\]])*)\]", r"\1 \2", kind)
