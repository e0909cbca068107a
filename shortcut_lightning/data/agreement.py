"""How far the copies of a photograph agree, place by place, as weights of the loss.

What only one of several purifiers left or drew is no part of the person. Not in arXiv 2406.18944.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

LEAST = 1e-3  # of the largest weight, so that a photograph on which nothing agrees still counts


def agreement_weights(copies: Sequence[Tensor], tolerance: float, downsampling: int) -> Tensor:
    """(1, H / downsampling, W / downsampling), mean one.

    Args:
        copies: The same photograph K times, (3, H, W) in [0, 1] each.
        tolerance: The difference between two copies, in /255, at which the weight of a place is
            1/e; from the largest to the smallest of them, mean over colours.
        downsampling: Side of an image over side of its latent.
    """
    stacked = torch.stack(list(copies))
    spread = (stacked.amax(0) - stacked.amin(0)).mean(0, keepdim=True) * 255
    coarse = functional.avg_pool2d(spread, downsampling)
    weights = (-((coarse / tolerance) ** 2)).exp().clamp(min=LEAST)
    return weights / weights.mean()
