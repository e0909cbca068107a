"""Photographs in their own shape: sizes of about equal area, and the one nearest to a picture.

Each picture is resized until it covers its bucket, and its middle is cropped to it, so that little
of it is lost and nothing is distorted; a batch holds pictures of one bucket (`bucket_order.py`).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from shortcut_lightning.files.images import round_to_8_bits


class Bucket(NamedTuple):
    """The size in pixels of the pictures in it."""

    height: int
    width: int

    def __str__(self) -> str:
        """As people say it, width first."""
        return f"{self.width} x {self.height}"


def buckets(side: int, step: int, ratio: float, longest: int = 0) -> list[Bucket]:
    """All sizes of about the area of a square, the square first, then longer and longer ones.

    Args:
        side: Of the square, in pixels. No bucket is larger, so none takes more memory.
        step: Pixels that both sides are multiples of.
        ratio: Longer side over shorter side, at most.
        longest: Pixels that a side may have at most; 0 for any number.

    Raises:
        ValueError: `side` is no multiple of `step`.
    """
    if side % step:
        raise ValueError(
            f"data.resolution is {side}; in buckets (data.bucketing) this model needs a multiple "
            f"of {step}."
        )
    found: dict[Bucket, None] = {}
    for shorter in range(side // step, 0, -1):
        low, high = shorter * step, (side // step) ** 2 // shorter * step
        if high <= ratio * low and high <= (longest or high):
            found |= dict.fromkeys((Bucket(high, low), Bucket(low, high)))
    return list(found)


def nearest(sizes: Sequence[Bucket], height: int, width: int) -> Bucket:
    """The size whose shape is the most like that of a picture: the least difference of the
    logarithms of height over width, of which high and wide pictures make the same."""
    shape = math.log(height / width)
    return min(sizes, key=lambda size: abs(math.log(size.height / size.width) - shape))


def fitted(image: Tensor, size: Bucket) -> Tensor:
    """(3, H, W) -> (3, *size): resized to cover it, 8-bit rounded, and its middle. Equal to the
    preparation of squares where `size` is one."""
    own = image.shape[-2:]
    scale = max(wanted / length for wanted, length in zip(size, own, strict=True))
    covering = [max(w, round(length * scale)) for w, length in zip(size, own, strict=True)]
    if covering != list(own):
        resized = functional.interpolate(image[None], covering, mode="bilinear", antialias=True)
        image = round_to_8_bits(resized[0])
    top, left = ((c - w) // 2 for c, w in zip(covering, size, strict=True))
    return image[..., top : top + size.height, left : left + size.width]


def preparation(sizes: Sequence[Bucket]) -> Callable[[Tensor], Tensor]:
    """What is done to each picture."""
    return lambda image: fitted(image, nearest(sizes, *image.shape[-2:]))


def size_of(image: Tensor) -> Bucket:
    """The bucket that a prepared picture is in."""
    return Bucket(*image.shape[-2:])


def class_sizes(photographs: Sequence[Bucket], count: int, given: Sequence[Bucket]) -> list[Bucket]:
    """Sizes of the class images to make beside those `given`, so that each bucket has its share of
    `count`, and at least one.

    Raises ValueError where there are fewer than buckets.
    """
    used = list(dict.fromkeys(photographs))
    if count < len(used):
        raise ValueError(
            f"data.num_class_images is {count}, but the photographs are in {len(used)} buckets "
            "(data.bucketing), and each needs a class image beside it: give at least "
            f"{len(used)}, or lower data.training.bucket_ratio."
        )
    row = list(photographs)
    for size in used:
        row.remove(size)
    row = [*used, *row]  # so that each bucket has one before any has its share
    row = [row[k % len(row)] for k in range(count)]
    there = Counter(given)
    wanted = []
    for size in row:
        there[size] -= 1
        wanted += [size] if there[size] < 0 else []
    return wanted
