"""Concepts that should not be learned: finding them, making them, saying where they are."""

from shortcut_lightning.concepts.annotations import CocoBoxes, CsvBoxes
from shortcut_lightning.concepts.base import Detector, NoDetector, PrecomputedBoxes
from shortcut_lightning.concepts.disturbed import DisturbedDetector
from shortcut_lightning.concepts.erasing import Captioner, Erasing
from shortcut_lightning.concepts.foreign import Detectors, FunctionDetector, UltralyticsDetector
from shortcut_lightning.concepts.geometry import Grid
from shortcut_lightning.concepts.grid_classifier import GridClassifier
from shortcut_lightning.concepts.protection import ProtectionDetector
from shortcut_lightning.concepts.qr import QRCodeDetector
from shortcut_lightning.concepts.text import TextDetector
from shortcut_lightning.concepts.transformers_models import (
    ConceptClassifier,
    ObjectDetector,
    ZeroShotDetector,
)

__all__ = [
    "Captioner",
    "CocoBoxes",
    "ConceptClassifier",
    "CsvBoxes",
    "Detector",
    "Detectors",
    "DisturbedDetector",
    "Erasing",
    "FunctionDetector",
    "Grid",
    "GridClassifier",
    "NoDetector",
    "ObjectDetector",
    "PrecomputedBoxes",
    "ProtectionDetector",
    "QRCodeDetector",
    "TextDetector",
    "UltralyticsDetector",
    "ZeroShotDetector",
]
