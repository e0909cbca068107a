"""What the callbacks here ask of a Trainer."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer

Kind = TypeVar("Kind", bound=Callback)


def run_folder(trainer: Trainer) -> Path:
    """The folder of this run, the same on every rank. Every rank must call it."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def callbacks_of(trainer: Trainer, kind: type[Kind]) -> list[Kind]:
    """The trainer's callbacks of this class, in their order."""
    return [c for c in trainer.callbacks if isinstance(c, kind)]  # type: ignore[attr-defined]


def looked_at(module: LightningModule) -> AbstractContextManager[None]:
    """The weights that a module would be judged by, where these are not the ones in training."""
    look: Callable[[], AbstractContextManager[None]] = getattr(module, "looked_at", nullcontext)
    return look()


def fast_dev_run(trainer: Trainer) -> bool:
    """Whether this is a rehearsal, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
