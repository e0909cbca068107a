"""LightningModules: what learns, and how one step goes."""

from shortcut_lightning.modules.dreambooth import DreamBooth

__all__ = ["DreamBooth"]
