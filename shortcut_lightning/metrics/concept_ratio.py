"""How often a concept appears in generated images (arXiv 2310.05873, section 4.1), and where."""

from collections.abc import Iterable, Sequence
from math import sqrt

import torch
from torch import Tensor

from shortcut_lightning.metrics.estimate import UNDEFINED, Estimate

_Z = 1.959964  # of 95 %


def concept_ratio(shows: Sequence[bool]) -> Estimate:
    """Share of images that show the concept, in [0, 1], with Wilson's interval (JASA 22, 1927).

    Unlike the usual one it is not empty at 0 or 1. NaN without images.
    """
    n = len(shows)
    if n == 0:
        return UNDEFINED
    share = sum(map(bool, shows)) / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Estimate(share, max(centre - half, 0.0), min(centre + half, 1.0), n)


def bin_ratio(bins: Sequence[Iterable[int]], grid_size: int) -> Tensor:
    """Covered bins of each image -> (G, G) share of images that show the concept in a bin."""
    counts = torch.zeros(grid_size**2)
    for image in bins:
        counts[sorted(set(image))] += 1
    return (counts / max(len(bins), 1)).view(grid_size, grid_size)


def f_star_r(distance: Estimate, ratio: Estimate) -> Estimate:
    """Distance to clean data times ratio in percent; small only where both are.

    The bounds are the products of the bounds, which is wider than 95 %.
    """
    return Estimate(
        distance.value * ratio.value * 100,
        distance.low * ratio.low * 100,
        distance.high * ratio.high * 100,
        min(distance.n, ratio.n),
    )
