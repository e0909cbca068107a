"""How much each place of an image counts in the loss (arXiv 2310.05873, section 3.3).

Of T bins K are covered by a concept. Inside weighs T / (K + alpha (T - K)), outside alpha times as
much, so that the weights sum to T. An image without the concept, or full of it, weighs one
everywhere. GeoDiffusion (arXiv 2306.04607) gives boxes more weight; this gives them less.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def check_alpha(alpha: float) -> None:
    """Raises ValueError unless alpha is above 0; warns below 1. `inf` is allowed."""
    if not alpha > 0:
        raise ValueError(
            f"data.erasing.alpha is {alpha}; outside over inside must be above 0 (1 weighs all "
            "alike, .inf leaves the concept out of the loss)."
        )
    if alpha < 1:
        warnings.warn(
            f"data.erasing.alpha is {alpha}: below 1 the concept counts more, not less.",
            stacklevel=3,
        )


def bin_weights(covered: Tensor, alpha: float) -> Tensor:
    """(..., G, G) bool -> float32 weights of the same shape, each image's sum its bin count T."""
    total = covered.shape[-1] * covered.shape[-2]
    inside = covered.sum(dim=(-2, -1), keepdim=True).double()
    if math.isinf(alpha):
        inner, outer = torch.zeros_like(inside), total / (total - inside).clamp(min=1)
    else:
        inner = total / (inside + alpha * (total - inside))
        outer = alpha * inner
    weights = torch.where(covered, inner, outer)
    return torch.where((inside == 0) | (inside == total), 1.0, weights).float()


def latent_weights(
    bins: Sequence[int], grid_size: int, alpha: float, height: int, width: int
) -> Tensor:
    """Covered bins -> (1, height, width) weights on the latent grid with mean one.

    A bin is copied to its cells; where the grid does not divide the latent, cells take the mean of
    the bins they lie in and the result is scaled back to mean one.
    """
    covered = torch.zeros(grid_size**2, dtype=torch.bool)
    covered[list(bins)] = True
    weights = bin_weights(covered.view(1, grid_size, grid_size), alpha)
    if height % grid_size == width % grid_size == 0:
        fine = weights.repeat_interleave(width // grid_size, -1)
        return fine.repeat_interleave(height // grid_size, -2)
    # Exact area means by way of the least common multiples.
    high, wide = math.lcm(height, grid_size), math.lcm(width, grid_size)
    fine = weights.repeat_interleave(wide // grid_size, -1)
    fine = fine.repeat_interleave(high // grid_size, -2)
    weights = functional.avg_pool2d(fine[None], (high // height, wide // width))[0]
    return weights / weights.mean()
