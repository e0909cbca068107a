"""Backgrounds for detectors: shapes and grain, like nothing in particular."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from shortcut_lightning.concepts.pixels import to_tensor


@cache
def clutter(index: int, size: int = 256) -> Tensor:
    """(3, size, size) in [0, 1]: forty rectangles, ellipses and lines, and a little noise."""
    rng = np.random.default_rng([size, index])
    picture = Image.new("RGB", (size, size), tuple(rng.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    for number in range(40):
        x, y = rng.integers(-size // 4, size, 2).tolist()
        w, h = rng.integers(size // 16, size // 3, 2).tolist()
        colour = tuple(rng.integers(0, 256, 3).tolist())
        shape = (pen.rectangle, pen.ellipse, pen.line)[number % 3]
        shape((x, y, x + w, y + h), fill=colour)
    pixels = np.asarray(picture).astype(float) + rng.normal(0, 8, (size, size, 3))
    return to_tensor(pixels.clip(0, 255).round().astype(np.uint8))


@cache
def grain(index: int, size: int = 256) -> Tensor:
    """(3, size, size) in [0, 1]: smooth colour noise without any letters."""
    rng = np.random.default_rng([size, index, 1])
    coarse = Image.fromarray(rng.integers(40, 216, (16, 16, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)).astype(float)
    pixels += rng.normal(0, 10, (size, size, 3))
    return to_tensor(pixels.clip(0, 255).round().astype(np.uint8))
