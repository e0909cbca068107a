"""Pictures and tables for the loggers that can show them.

Numbers reach every logger through `self.log`. Only W&B takes media here; the others leave them in
the run folder.
"""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image


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
