"""From photographs to batches."""

from shortcut_lightning.data.datamodule import PersonalizationDataModule
from shortcut_lightning.data.subjects import SeveralSubjects

__all__ = ["PersonalizationDataModule", "SeveralSubjects"]
