"""What the callbacks here ask of a Trainer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

Kind = TypeVar("Kind", bound=Callback)


def run_folder(trainer: Trainer) -> Path:
    """The folder of this run, the same on every rank. Every rank must call it."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def callbacks_of(trainer: Trainer, kind: type[Kind]) -> list[Kind]:
    """The trainer's callbacks of this class, in their order."""
    return [c for c in trainer.callbacks if isinstance(c, kind)]  # type: ignore[attr-defined]


@contextmanager
def looked_at(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """The module as it would be judged: nothing is dropped out, and the weights are the average
    that a checkpoint would hold, the optimiser's or a callback's, where these are not the ones in
    training. Those are back afterwards."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    averages: list[Any] = [c for c in callbacks_of(trainer, Callback) if hasattr(c, "looked_at")]
    with ExitStack() as stack:
        if hasattr(module, "looked_at"):
            stack.enter_context(module.looked_at())  # type: ignore[operator]
        for each in averages:
            stack.enter_context(each.looked_at(module))
        try:
            yield
        finally:
            for part, training in modes.items():
                part.training = training


def divided(trainer: Trainer) -> bool:
    """Whether each process trains with a part of the model, so that all have to compute with it
    together: one that began alone would wait for ever."""
    parts = isinstance(trainer.strategy, ModelParallelStrategy | FSDPStrategy)
    return parts and trainer.world_size > 1


def refuse_divided(trainer: Trainer, what: str, instead: str) -> None:
    """Raises ValueError where one process would ask a divided model alone."""
    if divided(trainer):
        raise ValueError(
            f"trainer.strategy {type(trainer.strategy).__name__}: {what} asks the model in some "
            f"processes alone, and each has only a part of it; {instead}."
        )


def fast_dev_run(trainer: Trainer) -> bool:
    """Whether this is a rehearsal, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
