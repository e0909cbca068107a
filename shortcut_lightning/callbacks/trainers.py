"""What the callbacks here ask of a Trainer."""

from pathlib import Path
from typing import TypeVar

from lightning.pytorch import Callback, Trainer

Kind = TypeVar("Kind", bound=Callback)


def run_folder(trainer: Trainer) -> Path:
    """The folder of this run, the same on every rank. Every rank must call it."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def callbacks_of(trainer: Trainer, kind: type[Kind]) -> list[Kind]:
    """The trainer's callbacks of this class, in their order."""
    return [c for c in trainer.callbacks if isinstance(c, kind)]  # type: ignore[attr-defined]


def fast_dev_run(trainer: Trainer) -> bool:
    """Whether this is a rehearsal, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
