"""Visible watermarks: a half-transparent word or logo, tiled, in a bar, the middle or a corner."""

import string
from typing import Annotated, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from shortcut_lightning.concepts.generators.base import (
    ConceptGenerator,
    check_order,
    extent,
    font,
    laid_over,
    lettered,
)
from shortcut_lightning.concepts.geometry import XYXY
from shortcut_lightning.ranges import Between, Share

Placement = Literal["tile", "bar", "centre", "corner"]
Mark = Literal["text", "logo"]
_INK = ((255, 255, 255), (0, 0, 0))

_Period = Annotated[float, Between(0.05, 1)]
_Size = Annotated[float, Between(0.01, 1)]


class Watermark(ConceptGenerator):
    """One mark for each picture, or a tiling of it; a tiling has one box for each visible tile.

    Args:
        label: What its boxes are called.
        share: Of the pictures of a set that get one.
        placements: Ways to place it, drawn evenly.
        marks: What it is, drawn evenly: a word, or a logo (ring with a letter).
        text: The word; empty draws a new one for each picture.
        opacity: Least and largest.
        period: Distance of tiles over the width: least and largest.
        rotation: Largest tilt of tiles in degrees, either way.
        size: Height of letters over the picture's: least and largest.
    """

    def __init__(
        self,
        label: str = "watermark",
        share: Share = 0.3,
        placements: tuple[Placement, ...] = get_args(Placement),
        marks: tuple[Mark, ...] = get_args(Mark),
        text: str = "",
        opacity: tuple[Share, Share] = (0.15, 0.6),
        period: tuple[_Period, _Period] = (0.2, 0.4),
        rotation: Annotated[float, Between(0, 180, note="degrees")] = 30.0,
        size: tuple[_Size, _Size] = (0.06, 0.12),
    ) -> None:
        check_order("opacity", opacity)
        check_order("period", period)
        check_order("size", size)
        self.label = label
        self.share = share
        self.placements = placements
        self.marks = marks
        self.text = text
        self.opacity = opacity
        self.period = period
        self.rotation = rotation
        self.size = size

    def draw(
        self, picture: Image.Image, rng: np.random.Generator
    ) -> tuple[Image.Image, list[XYXY]]:
        width, height = picture.size
        placement = self.placements[rng.integers(len(self.placements))]
        alpha = round(255 * rng.uniform(*self.opacity))
        ink = _INK[rng.integers(2)]
        if placement == "bar":
            stamps = [self._bar(width, height, ink, alpha, rng)]
        else:
            mark = self._mark(height * rng.uniform(*self.size), ink, alpha, rng)
            if placement == "tile":
                stamps = self._tiles(mark, width, height, rng)
            else:
                stamps = [_placed(mark, width, height, placement, rng)]
        boxes: list[XYXY] = []
        for stamp, left, top in stamps:
            layer = Image.new("RGBA", picture.size)
            layer.paste(stamp, (left, top))
            box = extent(layer)
            if box:
                picture = laid_over(picture, layer)
                boxes.append(box)
        return picture, boxes

    def _mark(
        self, size: float, ink: tuple[int, int, int], alpha: int, rng: np.random.Generator
    ) -> Image.Image:
        if self.marks[rng.integers(len(self.marks))] == "logo":
            return _logo(size, ink, alpha, rng)
        return _outlined(self.text or word(rng), size, ink, alpha)

    def _tiles(
        self, mark: Image.Image, width: int, height: int, rng: np.random.Generator
    ) -> list[tuple[Image.Image, int, int]]:
        angle = rng.uniform(-self.rotation, self.rotation)
        mark = mark.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        step = max(round(rng.uniform(*self.period) * width), 4)
        # Tiles touch at most; a wide word is repeated at its own width.
        across, down = max(step, mark.width), max(step, mark.height)
        start_x, start_y = (-int(rng.integers(length)) for length in (across, down))
        return [
            (mark, x, y)
            for y in range(start_y, height, down)
            for x in range(start_x, width, across)
        ]

    def _bar(
        self,
        width: int,
        height: int,
        ink: tuple[int, int, int],
        alpha: int,
        rng: np.random.Generator,
    ) -> tuple[Image.Image, int, int]:
        """A strip along the bottom with the word at one of its ends, as picture agencies have."""
        thickness = max(round(1.6 * height * rng.uniform(*self.size)), 6)
        paper = (255 - ink[0],) * 3
        strip = Image.new("RGBA", (width, thickness), (*paper, alpha))
        mark = _outlined(self.text or word(rng), thickness * 0.62, ink, 255)
        left = max(width - mark.width - 2, 0) if rng.random() < 0.5 else 2
        strip.alpha_composite(mark, (left, max((thickness - mark.height) // 2, 0)))
        return strip, 0, height - thickness


def word(rng: np.random.Generator, shortest: int = 4, longest: int = 7) -> str:
    """A made-up name, with which no caption can be confused."""
    return "".join(rng.choice(list(string.ascii_uppercase), rng.integers(shortest, longest + 1)))


def _outlined(text: str, size: float, ink: tuple[int, int, int], alpha: int) -> Image.Image:
    stroke = max(round(size / 14), 1) if size >= 10 else 0
    opposite = (255 - ink[0], 255 - ink[1], 255 - ink[2], alpha)
    return lettered(text, size, (*ink, alpha), stroke, opposite)


def _logo(
    size: float, ink: tuple[int, int, int], alpha: int, rng: np.random.Generator
) -> Image.Image:
    side = max(round(2.2 * size), 10)
    picture = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(picture)
    thick = max(side // 10, 1)
    pen.ellipse((0, 0, side - 1, side - 1), outline=(*ink, alpha), width=thick)
    pen.text(
        (side / 2, side / 2),
        word(rng, 1, 1),
        fill=(*ink, alpha),
        font=font(side * 0.6),
        anchor="mm",
    )
    return picture


def _placed(
    mark: Image.Image, width: int, height: int, placement: Placement, rng: np.random.Generator
) -> tuple[Image.Image, int, int]:
    if mark.width > width or mark.height > height:
        scale = min(width / mark.width, height / mark.height)
        mark = mark.resize((max(int(mark.width * scale), 1), max(int(mark.height * scale), 1)))
    free_x, free_y = width - mark.width, height - mark.height
    if placement == "centre":
        return mark, free_x // 2, free_y // 2
    margin = round(0.03 * width)
    right, bottom = rng.random() < 0.7, rng.random() < 0.7
    left = max(free_x - margin, 0) if right else min(margin, free_x)
    top = max(free_y - margin, 0) if bottom else min(margin, free_y)
    return mark, left, top
