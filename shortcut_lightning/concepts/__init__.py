"""Concepts that should not be learned: finding them."""

from shortcut_lightning.concepts.base import Detector, NoDetector, PrecomputedBoxes

__all__ = ["Detector", "NoDetector", "PrecomputedBoxes"]
