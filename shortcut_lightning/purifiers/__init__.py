"""Cleaning of protected images; `base.py` says what all purifiers promise."""

from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.gaussian import Gaussian
from shortcut_lightning.purifiers.jpeg import Jpeg
from shortcut_lightning.purifiers.resize import Resize

__all__ = ["Gaussian", "Jpeg", "Purifier", "Resize"]
