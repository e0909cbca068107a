"""Copies and near-copies among images: whoever trains on one has nearly seen the other.

Candidates share a perceptual hash (signs of the 8 x 8 lowest frequencies of a 32 x 32 grey picture,
within a few bits), mirrored or not; a closer look at small colour pictures confirms them. Large
sets are not compared all with all, but by the tables of `near_hashes.py`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.fft import dctn
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.audit.near_hashes import close_pairs, packed

BITS = 10  # of 63 that may differ
LIKENESS = 0.98  # correlation of the small pictures from which on two are one
BLOCK = 2048  # images compared with all others at a time
ALL_WITH_ALL = 2**28  # pairs up to which that is done


class Signature(NamedTuple):
    """What is kept of an image to find its copies."""

    bits: np.ndarray  # (2, 63) float32 of -1 and 1: as it is and mirrored
    small: np.ndarray  # (2, 3 * 16 * 16) float32, mean 0 and length 1 each


class Copy(NamedTuple):
    """Two images that are one, by position, and how alike they are in [0, 1]."""

    first: int
    second: int
    likeness: float


def signature(image: Tensor) -> Signature:
    """Of (3, H, W) in [0, 1]."""
    both = [image, image.flip(-1)]
    return Signature(
        np.stack([_bits(each) for each in both]), np.stack([_small(each) for each in both])
    )


def find_copies(first: Sequence[Signature], second: Sequence[Signature]) -> list[Copy]:
    """Every pair of one of `first` and one of `second` that shows the same picture; beyond
    `ALL_WITH_ALL` pairs those that `near_hashes.close_pairs` finds."""
    if not first or not second:
        return []
    few = len(first) * len(second) <= ALL_WITH_ALL
    copies: dict[tuple[int, int], float] = {}
    for side, i, j in (_compared if few else _looked_up)(first, second):
        likeness = float(first[i].small[side] @ second[j].small[0])
        if likeness >= LIKENESS:
            copies[i, j] = max(likeness, copies.get((i, j), 0.0))
    return [Copy(*pair, min(likeness, 1.0)) for pair, likeness in sorted(copies.items())]


def _compared(
    first: Sequence[Signature], second: Sequence[Signature]
) -> Iterator[tuple[int, int, int]]:
    bits = np.stack([each.bits[0] for each in second])
    for start in range(0, len(first), BLOCK):
        block = first[start : start + BLOCK]
        for side in (0, 1):
            agreeing = np.stack([each.bits[side] for each in block]) @ bits.T
            for i, j in zip(*np.nonzero(agreeing >= 63 - 2 * BITS), strict=True):
                yield side, start + int(i), int(j)


def _looked_up(
    first: Sequence[Signature], second: Sequence[Signature]
) -> Iterator[tuple[int, int, int]]:
    hashes = packed(np.stack([each.bits[0] for each in second]))
    for side in (0, 1):
        own = packed(np.stack([each.bits[side] for each in first]))
        for i, j in zip(*close_pairs(own, hashes, BITS), strict=True):
            yield side, int(i), int(j)


def first_of_each(signatures: Sequence[Signature]) -> list[int]:
    """Positions that remain when of every group of copies only the first is kept."""
    dropped: set[int] = set()
    for copy in find_copies(signatures, signatures):
        if copy.first < copy.second and copy.first not in dropped:
            dropped.add(copy.second)
    return [place for place in range(len(signatures)) if place not in dropped]


def _bits(image: Tensor) -> np.ndarray:
    grey = functional.interpolate(image[None], (32, 32), mode="area").mean((0, 1)).numpy()
    low = dctn(grey)[:8, :8].ravel()[1:]  # without the mean
    return np.where(low > np.median(low), 1.0, -1.0).astype(np.float32)


def _small(image: Tensor) -> np.ndarray:
    small = functional.interpolate(image[None], (16, 16), mode="area").flatten().numpy()
    centred = small - small.mean()
    return (centred / max(float(np.linalg.norm(centred)), 1e-6)).astype(np.float32)
