"""Distances between sets. Run: pytest tests/metrics/test_frechet.py"""

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from shortcut_lightning.metrics.frechet import (
    frechet_distance,
    kernel_distance,
    sample_size_warning,
)


def features(n: int, dimension: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(dimension) + 0.1 * torch.randn(dimension, dimension, generator=generator)
    return torch.randn(n, dimension, generator=generator) @ mixing + shift


def naive_frechet(x: Tensor, y: Tensor) -> float:
    s1, s2 = torch.cov(x.double().T).numpy(), torch.cov(y.double().T).numpy()
    gap = (x.double().mean(0) - y.double().mean(0)).square().sum()
    root = scipy.linalg.sqrtm(s1 @ s2).real
    return float(gap) + (s1 + s2 - 2 * root).trace()


def naive_kernel(x: Tensor, y: Tensor) -> float:
    def k(a: Tensor, b: Tensor) -> float:
        return (float(a.double() @ b.double()) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


class FirstPixels(nn.Module):
    """An extractor for torchmetrics: the image's numbers are its features."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


@pytest.mark.parametrize(("n", "dimension"), [(40, 6), (5, 32)], ids=["tall", "wide"])
def test_equal_sets_have_no_frechet_distance(n: int, dimension: int) -> None:
    x = features(n, dimension, 0)
    assert frechet_distance(x, x.clone()).value == pytest.approx(0, abs=1e-6)


def test_equal_sets_have_no_positive_kernel_distance() -> None:
    x = features(40, 6, 0)
    assert kernel_distance(x, x).value <= 0


def test_a_shift_costs_its_square() -> None:
    x = features(40, 6, 0)
    assert frechet_distance(x, x + 2).value == pytest.approx(6 * 4, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "m", "dimension"), [(50, 40, 8), (50, 6, 8)], ids=["full rank", "one singular"]
)
def test_frechet_is_the_naive_formula(n: int, m: int, dimension: int) -> None:
    x, y = features(n, dimension, 0), features(m, dimension, 1, shift=0.3)
    assert frechet_distance(x, y).value == pytest.approx(naive_frechet(x, y), rel=1e-4)


def test_kernel_is_the_naive_formula() -> None:
    x, y = features(12, 5, 0), features(9, 5, 1, shift=0.3)
    assert kernel_distance(x, y).value == pytest.approx(naive_kernel(x, y), rel=1e-6)


def test_both_agree_with_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    images, references = ((torch.rand(30, 3, 2, 2) * s).byte() for s in (255, 180))
    fid = FrechetInceptionDistance(FirstPixels()).set_dtype(torch.float64)
    kid = KernelInceptionDistance(FirstPixels(), subsets=1, subset_size=30)
    for metric in (fid, kid):
        metric.update(references, real=True)
        metric.update(images, real=False)
    seen = images.flatten(1), references.flatten(1)
    assert frechet_distance(*seen).value == pytest.approx(float(fid.compute()), rel=1e-4)
    assert kernel_distance(*seen).value == pytest.approx(float(kid.compute()[0]), rel=1e-4)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_interval_holds_the_value_and_repeats(distance) -> None:
    x, y = features(20, 6, 0), features(16, 6, 1, shift=0.5)
    estimate = distance(x, y)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 16
    assert distance(x, y) == estimate


def test_kernel_interval_covers_zero_for_sets_of_one_kind_and_not_for_two() -> None:
    x = features(60, 6, 0)
    assert (same := kernel_distance(x[:30], x[30:])).low <= 0 <= same.high
    assert kernel_distance(x[:30], x[30:] + 1).low > 0


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_two_images_give_a_number_and_one_gives_none(distance) -> None:
    x = features(2, 4, 0)
    assert math.isfinite(distance(x, x + 1).low)
    alone = distance(x[:1], x)
    assert math.isnan(alone.value)
    assert alone.n == 1


@pytest.mark.parametrize(
    ("images", "references", "said"),
    [
        (1, 40, "need two images in each set; there are 1 generated and 40 reference images"),
        (64, 8, "64 generated and 8 reference images for 16 features"),
        (64, 17, ""),
    ],
)
def test_too_small_samples_are_named(images: int, references: int, said: str) -> None:
    warning = sample_size_warning(images, references, 16, "pocket")
    assert (said in warning) if said else not warning
