"""From photographs to batches."""

from shortcut_lightning.data.datamodule import PersonalizationDataModule

__all__ = ["PersonalizationDataModule"]
