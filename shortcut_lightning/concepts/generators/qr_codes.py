"""Opaque black-and-white QR codes, made by segno."""

import string
from functools import cache
from typing import Annotated

import numpy as np
from PIL import Image

from shortcut_lightning.concepts.extra import needed
from shortcut_lightning.concepts.generators.base import ConceptGenerator, check_order
from shortcut_lightning.concepts.geometry import XYXY
from shortcut_lightning.ranges import Between, CountOrNone, Share

_Edge = Annotated[float, Between(0.05, 1)]
_Version = Annotated[int, Between(1, 6)]


class QRCode(ConceptGenerator):
    """One code in the picture.

    The published set of the method (ICD-QR) has codes without a quiet border, of 0.27 to 0.48 of
    the width; finders need a border of one module or more, which is the default.

    Args:
        label: What its boxes are called.
        share: Of the pictures of a set that get one.
        edge: Side of the code over the picture's shorter side, border included: smallest, largest.
        versions: Smallest and largest version, 1 (21 modules a side) to 6 (41 modules).
        border: Quiet modules around the code.
        places: Places along a side where it may be, evenly spaced; 0 for anywhere.
        text: What it says; empty draws something new for each picture.

    Raises ValueError for a text that does not fit into `versions`.
    """

    def __init__(
        self,
        label: str = "QR code",
        share: Share = 0.75,
        edge: tuple[_Edge, _Edge] = (0.25, 0.5),
        versions: tuple[_Version, _Version] = (1, 6),
        border: CountOrNone = 1,
        places: CountOrNone = 0,
        text: str = "",
    ) -> None:
        check_order("edge", edge)
        check_order("versions", versions)
        self.label = label
        self.share = share
        self.edge = edge
        self.versions = versions
        self.border = border
        self.places = places
        self.text = text
        if places == 1:
            raise ValueError(f"places is {places}; give 0 (anywhere) or 2 or more along a side.")
        if text and len(text) > _capacity(versions[0], "L"):
            raise ValueError(f"text '{text}' does not fit into a code of version {versions[0]}.")

    def draw(
        self, picture: Image.Image, rng: np.random.Generator
    ) -> tuple[Image.Image, list[XYXY]]:
        width, height = picture.size
        side = max(round(rng.uniform(*self.edge) * min(width, height)), 8)
        left, top = (self._place(length - side, rng) for length in (width, height))
        code = self.modules(rng)
        # Whole modules where there is room for them; else averages, as a small photograph has.
        how = Image.Resampling.NEAREST if side >= 2 * len(code) else Image.Resampling.BOX
        result = picture.copy()
        result.paste(Image.fromarray(code).resize((side, side), how), (left, top))
        box = (left / width, top / height, (left + side) / width, (top + side) / height)
        return result, [box]

    def _place(self, free: int, rng: np.random.Generator) -> int:
        if not self.places:
            return int(rng.integers(free + 1))
        return round(free * int(rng.integers(self.places)) / (self.places - 1))

    def modules(self, rng: np.random.Generator) -> np.ndarray:
        """A random code, (M, M) uint8, 0 black and 255 white, border included."""
        segno = needed("segno", "The QR code generator")
        version = int(rng.integers(self.versions[0], self.versions[1] + 1))
        error = "LMQH"[rng.integers(4)] if not self.text else "L"
        letters = list(string.ascii_letters + string.digits)
        text = self.text or "".join(rng.choice(letters, _MOST))[: _capacity(version, error)]
        code = segno.make(text, version=version, error=error, boost_error=False, micro=False)
        rows = np.array([list(row) for row in code.matrix_iter(border=self.border)], bool)
        return np.where(rows, 0, 255).astype(np.uint8)


_MOST = 134  # letters that fill version 6 at the lowest error level


@cache
def _capacity(version: int, error: str) -> int:
    """How many letters fill a code."""
    segno = needed("segno", "The QR code generator")
    for length in range(_MOST, 0, -1):
        try:
            segno.make("a" * length, version=version, error=error, boost_error=False, micro=False)
        except segno.DataOverflowError:
            continue
        return length
    return 0
