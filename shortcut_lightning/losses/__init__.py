"""Tensors in, scalars out; no Trainer, no config."""

from shortcut_lightning.losses.contrast import contrast_loss
from shortcut_lightning.losses.denoising import DreamBoothLoss

__all__ = ["DreamBoothLoss", "contrast_loss"]
