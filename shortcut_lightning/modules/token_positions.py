"""Places as vectors, for words that stand for places."""

import torch
from torch import Tensor


def sine_cosine(grid_size: int, width: int) -> Tensor:
    """(grid_size^2, width) two-dimensional sine-cosine positions, row by row, norm sqrt(width / 2).

    Half of the columns speak of x and half of y, each at wavelengths from 2 pi up to 10000 * 2 pi
    (arXiv 1706.03762, section 3.5). Columns left over by a width not divisible by four are zero.
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(grid_size)[:, None] * frequencies  # (G, width / 4)
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    x = along.repeat(grid_size, 1)
    y = along.repeat_interleave(grid_size, dim=0)
    left_over = torch.zeros(grid_size**2, width - x.shape[1] - y.shape[1])
    return torch.cat([x, y, left_over], dim=1)
