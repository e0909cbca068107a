"""Estimates. Run: pytest tests/metrics/test_estimate.py"""

import math

import pytest
import torch

from shortcut_lightning.metrics.estimate import Estimate, mean_estimate, resampled_indices


def test_mean_interval_is_the_naive_percentile_bootstrap() -> None:
    values = torch.tensor([0.1, 0.4, 0.35, 0.8, 0.2])
    means = sorted(
        sum(float(values[i]) for i in row) / len(row) for row in resampled_indices(5).tolist()
    )

    def percentile(q: float) -> float:
        position = q * (len(means) - 1)
        below, share = int(position), position - int(position)
        return means[below] * (1 - share) + means[below + 1] * share

    estimate = mean_estimate(values)
    assert estimate.value == pytest.approx(0.37)
    assert estimate.low == pytest.approx(percentile(0.025))
    assert estimate.high == pytest.approx(percentile(0.975))
    assert estimate.n == 5


def test_same_values_same_interval() -> None:
    values = torch.rand(20)
    assert mean_estimate(values) == mean_estimate(values)


def test_interval_narrows_with_the_root_of_the_sample_size() -> None:
    few, many = (mean_estimate(torch.linspace(-1, 1, n)) for n in (50, 5000))
    ratio = (few.high - few.low) / (many.high - many.low)
    assert ratio == pytest.approx(10, rel=0.15)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    samples = torch.randn(200, 40, generator=torch.Generator().manual_seed(0))
    covered = [(e := mean_estimate(sample)).low <= 0 <= e.high for sample in samples]
    assert 0.88 <= sum(covered) / len(covered) <= 0.99


@pytest.mark.parametrize("n", [1, 4])
def test_equal_values_leave_no_doubt(n: int) -> None:
    assert mean_estimate(torch.full((n,), 0.5)) == Estimate(0.5, 0.5, 0.5, n)


def test_no_image_no_number() -> None:
    estimate = mean_estimate(torch.empty(0))
    assert math.isnan(estimate.value)
    assert estimate.n == 0
