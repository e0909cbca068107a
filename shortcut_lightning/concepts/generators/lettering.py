"""Overlaid text: lines of real words on a banner across the picture or on a label."""

from typing import Annotated, Literal, get_args

import numpy as np
from PIL import Image

from shortcut_lightning.concepts.generators.base import (
    ConceptGenerator,
    check_order,
    font,
    lettered,
)
from shortcut_lightning.concepts.geometry import XYXY
from shortcut_lightning.ranges import Between, CountOrNone, Share

Placement = Literal["banner", "label"]

WORDS = (  # noqa: SIM905
    "about again best big black blue book buy city clean cloud coffee cold colour day deal dream "
    "early easy final fine first fresh garden gift gold good great green happy home hot house "
    "last light little long love low market moon morning music new next night now ocean offer old "
    "only open orange paper party photo price prime pure quick radio red river road sale season "
    "shop silver simple sky small smart snow spring star street summer sun super sweet time today "
    "top travel under water week white winter world year young zero"
).split()
_PAPERS = ((255, 255, 255), (20, 20, 20), (200, 30, 40), (30, 60, 160), (250, 210, 60))

_Lines = Annotated[int, Between(1, 8)]
_Size = Annotated[float, Between(0.01, 0.5)]


class Text(ConceptGenerator):
    """One to four lines on a strip or label of their own. Each line is a box, as a reader finds it.

    Args:
        label: What its boxes are called.
        share: Of the pictures of a set that get it.
        lines: Fewest and most lines.
        size: Height of letters over the picture's: least and largest.
        placements: Ways to place it, drawn evenly: a banner as wide as the picture, or a label.
        slant: Largest shear of the letters, for a second face of the one font.
        text: What each line says; empty draws words for each picture.
        papers: How many of the five colours of strips are drawn; 1 is black on white.
        places: Heights at which it may be, evenly spaced from top to bottom; 0 for anywhere.
    """

    def __init__(
        self,
        label: str = "text",
        share: Share = 0.75,
        lines: tuple[_Lines, _Lines] = (1, 4),
        size: tuple[_Size, _Size] = (0.05, 0.12),
        placements: tuple[Placement, ...] = get_args(Placement),
        slant: Annotated[float, Between(0, 2)] = 0.2,
        text: str = "",
        papers: Annotated[int, Between(1, len(_PAPERS))] = len(_PAPERS),
        places: CountOrNone = 0,
    ) -> None:
        check_order("lines", lines)
        check_order("size", size)
        self.label = label
        self.share = share
        self.lines = lines
        self.size = size
        self.placements = placements
        self.slant = slant
        self.text = text
        self.papers = papers
        self.places = places
        if places == 1:
            raise ValueError(f"places is {places}; give 0 (anywhere) or 2 or more.")

    def draw(
        self, picture: Image.Image, rng: np.random.Generator
    ) -> tuple[Image.Image, list[XYXY]]:
        width, height = picture.size
        paper = _PAPERS[rng.integers(self.papers)]
        ink = (0, 0, 0) if sum(paper) > 380 else (255, 255, 255)
        letters = max(height * rng.uniform(*self.size), 6.0)
        bold, shear = bool(rng.random() < 0.5), float(rng.uniform(0, self.slant))
        lines = []
        for _ in range(int(rng.integers(self.lines[0], self.lines[1] + 1))):
            words = rng.choice(WORDS, rng.integers(1, 4))
            text = " ".join(words).upper() if rng.random() < 0.5 else " ".join(words).capitalize()
            lines.append(_line(self.text or text, letters, ink, bold, shear, width))
        gap = max(round(letters * 0.25), 1)
        block_width = max(line.width for line in lines) + 2 * gap
        block_height = sum(line.height + gap for line in lines) + gap
        scale = min(1.0, width / block_width, height / block_height)
        if self.placements[rng.integers(len(self.placements))] == "banner":
            block_width = max(block_width, width)
        block = Image.new("RGB", (block_width, block_height), paper)
        tops, top = [], gap
        for line in lines:
            block.paste(line, (gap, top), line)
            tops.append(top)
            top += line.height + gap
        if scale < 1:
            block = block.resize(
                (min(max(int(block_width * scale), 1), width), max(int(block_height * scale), 1)),
                Image.Resampling.LANCZOS,
            )
        left = int(rng.integers(width - min(block.width, width) + 1))
        free = height - min(block.height, height)
        above = int(rng.integers(free + 1))
        if self.places:
            above = round(free * int(rng.integers(self.places)) / (self.places - 1))
        result = picture.copy()
        result.paste(block, (left, above))
        boxes: list[XYXY] = []
        stretch = block.width / block_width
        for line, top in zip(lines, tops, strict=True):
            x0, y0 = left + gap * stretch, above + top * scale
            x1, y1 = x0 + line.width * stretch, y0 + line.height * scale
            boxes.append((x0 / width, y0 / height, min(x1 / width, 1.0), min(y1 / height, 1.0)))
        return result, boxes


def _line(
    text: str, size: float, ink: tuple[int, int, int], bold: bool, shear: float, most: int
) -> Image.Image:
    """One line as a tight RGBA picture; words that do not fit into `most` pixels are left out."""
    letters = font(size)
    stroke = max(round(size / 20), 1) if bold and size >= 12 else 0
    while " " in text and letters.getlength(text) + size > 0.9 * most:
        text = text.rpartition(" ")[0]
    picture = lettered(text, size, (*ink, 255), stroke)
    lean = round(shear * picture.height)
    if not lean:
        return picture
    wider = Image.new("RGBA", (picture.width + lean, picture.height))
    wider.paste(picture)
    return wider.transform(
        wider.size,
        Image.Transform.AFFINE,
        (1, shear, -lean, 0, 1, 0),
        Image.Resampling.BICUBIC,
    )
