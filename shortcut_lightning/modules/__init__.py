"""LightningModules: what learns, and how one step goes."""

from shortcut_lightning.modules.dreambooth import DreamBooth
from shortcut_lightning.modules.geometry_erasure import GeometryErasure

__all__ = ["DreamBooth", "GeometryErasure"]
