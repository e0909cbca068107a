"""Tensors in, scalars out; no Trainer, no config."""

from shortcut_lightning.losses.denoising import DreamBoothLoss

__all__ = ["DreamBoothLoss"]
