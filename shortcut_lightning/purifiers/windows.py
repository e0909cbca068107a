"""Overlapping squares of a picture, for models that know pictures of one size."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def summed(images: Tensor, side: int, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Each window of (N, 3, H, W) changed: their sum at each pixel, and how many there are."""
    total, count = torch.zeros_like(images), torch.zeros_like(images)
    for place in windows(images.shape[-2], images.shape[-1], side):
        total[place] = total[place] + change(images[place])
        count[place] += 1
    return total, count


def windows(height: int, width: int, side: int) -> Iterator[tuple]:
    """Index of each square of the given side; steps are half of it, the last touches the edge. A
    picture that is smaller is one window, or one row of them."""
    for top in starts(height, side):
        for left in starts(width, side):
            yield (..., slice(top, top + side), slice(left, left + side))


def starts(length: int, side: int) -> list[int]:
    """Where windows begin along one axis."""
    return sorted({*range(0, length - side + 1, side // 2), max(0, length - side)})
