"""What a verb says at its end: the numbers with their intervals, and where everything lies."""

from collections.abc import Mapping
from pathlib import Path

from shortcut_lightning.metrics.estimate import Estimate

_PARTS = {
    "report": "report.html",
    "export": "export",
    "images": "images",
    "checkpoint": "checkpoints/last.ckpt",
}


def numbers(estimates: Mapping[str, Estimate]) -> str:
    """A line for each number: value with four digits, 95 % interval, what it rests on."""
    width = max(map(len, estimates), default=0)
    lines = [f"{name:{width}}  {_number(each)}" for name, each in estimates.items()]
    return "".join(f"{line}\n" for line in lines)


def places(folder: Path) -> str:
    """A line for the run folder and for each thing worth opening in it."""
    there = {name: folder / part for name, part in _PARTS.items() if (folder / part).exists()}
    lines = {"run folder": folder} | there
    width = max(map(len, lines))
    return "".join(f"{name:{width}}  {path}\n" for name, path in lines.items())


def _number(each: Estimate) -> str:
    if each.n == 0:
        return "–"
    return f"{each.value:.4g} ({each.low:.4g} to {each.high:.4g}), n {each.n}"
