"""What is said to loggers beside the losses: numbers that are measured now and then, and pictures
and tables for those that can show them.

Only W&B takes media here; the others leave them in the run folder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image


def log_numbers(trainer: Trainer, pl_module: LightningModule, numbers: Mapping[str, float]) -> None:
    """Gives loggers numbers of this very step. Every rank must call it, in `on_train_batch_end`.

    What `self.log` is given there reaches them at multiples of `log_every_n_steps` alone, under
    that step, and is lost where the epoch ends before; callbacks may still monitor it.
    """
    if not numbers:
        return
    pl_module.log_dict(dict(numbers), logger=False)
    for logger in trainer.loggers if trainer.is_global_zero else ():
        logger.log_metrics(dict(numbers), step=trainer.global_step)


def log_pictures(
    trainer: Trainer, key: str, pictures: Sequence[Image.Image], captions: Sequence[str]
) -> None:
    """Shows captioned pictures under `key`. Call it on the first rank."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, list(pictures), step=trainer.global_step, caption=list(captions))


def log_table(
    trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Shows a table under `key`. Call it on the first rank."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(
                key,
                columns=list(columns),
                data=[list(row) for row in rows],
                step=trainer.global_step,
            )
