"""A number with its uncertainty.

Intervals are percentile bootstraps (Efron 1979): the statistic of 1000 resamples drawn with a seed
of their own, so the same images give the same interval in every run.
"""

from typing import NamedTuple

import torch
from torch import Tensor

RESAMPLES = 1000
CONFIDENCE = 0.95
FEW = 10  # below this many values a bootstrap interval is much too narrow


class Estimate(NamedTuple):
    """A measured value, its 95 % interval and the number of images it rests on."""

    value: float
    low: float
    high: float
    n: int


UNDEFINED = Estimate(float("nan"), float("nan"), float("nan"), 0)


def resampled_indices(n: int, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """(resamples, n) int64, each row n draws with replacement from range(n)."""
    return torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))


def interval(statistics: Tensor) -> tuple[float, float]:
    """The central 95 % of resampled statistics, (R,) -> (low, high)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = torch.quantile(statistics.double(), torch.tensor([tail, 1 - tail]).double())
    return float(low), float(high)


def mean_estimate(values: Tensor, seed: int = 0) -> Estimate:
    """Mean of one value per image, (N,) -> estimate; NaN when there is no image."""
    if len(values) == 0:
        return UNDEFINED
    values = values.detach().double().cpu()
    means = values[resampled_indices(len(values), seed=seed)].mean(dim=1)
    return Estimate(float(values.mean()), *interval(means), len(values))
