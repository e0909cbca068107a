"""Concepts to order: pasted into any picture, with the boxes they were pasted in."""

from shortcut_lightning.concepts.generators.base import ConceptGenerator, Contaminated
from shortcut_lightning.concepts.generators.lettering import Text
from shortcut_lightning.concepts.generators.qr_codes import QRCode
from shortcut_lightning.concepts.generators.watermarks import Watermark

__all__ = ["ConceptGenerator", "Contaminated", "QRCode", "Text", "Watermark"]
