"""Frechet and kernel distance between two sets of images, from features computed once.

Frechet distance: arXiv 1706.08500, eq. 6, between Gaussians fitted to the features. Kernel
distance: arXiv 1801.01401, the unbiased MMD^2 with k(x, y) = (x.y / D + 1)^3. torchmetrics has
both, but keeps sums or subsets rather than features, and an interval needs the features; the tests
hold these functions against torchmetrics.

Resampling with repeats biases both distances upwards. For the kernel distance, pairs that are the
same image twice are left out, which removes the bias. For the Frechet distance the interval is
value +- 1.96 standard deviations of the resamples, wherever they centre: it says how far the number
would move for other images *at this sample size*, not what it would be with endless images. Compare
Frechet distances only between sets of equal size.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from shortcut_lightning.metrics.estimate import (
    RESAMPLES,
    UNDEFINED,
    Estimate,
    interval,
    resampled_indices,
)

# A Frechet distance decomposes a matrix; 200 resamples give its standard deviation to 5 %.
_FEWER = 200
_CHUNK = 50  # resamples worked on at once; bounds the memory


def frechet_distance(images: Tensor, references: Tensor) -> Estimate:
    """Features (N, D) and (R, D) -> ||m1 - m2||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), 0 or more.

    `n` is the size of the smaller set. NaN when a set has fewer than two images.
    """
    first, second = images.double().cpu(), references.double().cpu()
    n = min(len(first), len(second))
    if n < 2:
        return UNDEFINED._replace(n=n)
    value = float(_frechet(first[None], second[None]))
    pairs = _chunks(len(first), len(second), _FEWER)
    margin = 1.96 * float(torch.cat([_frechet(first[i], second[j]) for i, j in pairs]).std())
    return Estimate(value, max(value - margin, 0.0), value + margin, n)


def kernel_distance(images: Tensor, references: Tensor) -> Estimate:
    """Features (N, D) and (R, D) -> unbiased MMD^2; about zero, at times below it, for equal sets.

    `n` is the size of the smaller set. NaN when a set has fewer than two images.
    """
    first, second = images.double().cpu(), references.double().cpu()
    n = min(len(first), len(second))
    if n < 2:
        return UNDEFINED._replace(n=n)
    k_xx, k_yy = _kernel(first, first).fill_diagonal_(0), _kernel(second, second).fill_diagonal_(0)
    k_xy = _kernel(first, second)
    ones = torch.ones(1, len(first)).double(), torch.ones(1, len(second)).double()
    value = float(_mmd(k_xx, k_yy, k_xy, *ones))
    drawn = torch.cat(
        [
            _mmd(k_xx, k_yy, k_xy, _counts(i, len(first)), _counts(j, len(second)))
            for i, j in _chunks(len(first), len(second), RESAMPLES)
        ]
    )
    # A resample of one image alone, which very small sets allow, has no distance: 0 / 0.
    return Estimate(value, *interval(drawn[drawn.isfinite()]), n)


def sample_size_warning(n_images: int, n_references: int, dimension: int, extractor: str) -> str:
    """One sentence when the sets are too small for a distance of sets to mean much, else ""."""
    n = min(n_images, n_references)
    if n < 2:
        return (
            f"Frechet and kernel distance ({extractor}) need two images in each set; there are "
            f"{n_images} generated and {n_references} reference images."
        )
    if n <= dimension:
        return (
            f"Frechet distance ({extractor}): {n_images} generated and {n_references} reference "
            f"images for {dimension} features. With fewer images than features the covariances are "
            "singular and the distance mostly shows the sample size; trust the kernel distance, "
            "and compare only at equal sizes."
        )
    return ""


def _frechet(x: Tensor, y: Tensor) -> Tensor:
    """(B, N, D), (B, R, D) -> (B,) Frechet distances.

    With S1 = A'A and S2 = B'B, tr (S1 S2)^(1/2) is the sum of the singular values of AB': no
    matrix square root, and the cost follows the smaller of the sample size and D.
    """
    means = x.mean(1), y.mean(1)
    a = _triangle((x - means[0][:, None]) / (x.shape[1] - 1) ** 0.5)
    b = _triangle((y - means[1][:, None]) / (y.shape[1] - 1) ** 0.5)
    cross = torch.linalg.svdvals(a @ b.mT).sum(-1)
    spread = a.square().sum((-2, -1)) + b.square().sum((-2, -1)) - 2 * cross
    return ((means[0] - means[1]).square().sum(-1) + spread).clamp_min(0)


def _triangle(a: Tensor) -> Tensor:
    """A matrix with the same A'A and at most D rows."""
    return torch.linalg.qr(a, mode="r").R if a.shape[-2] > a.shape[-1] else a


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mmd(k_xx: Tensor, k_yy: Tensor, k_xy: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """MMD^2 of samples in which image i occurs u[:, i] times; (B, N), (B, R) -> (B,).

    `k_xx` and `k_yy` have a zero diagonal, so that no image is compared with itself.
    """
    return (
        ((u @ k_xx) * u).sum(1) / (u.sum(1) ** 2 - u.square().sum(1))
        + ((v @ k_yy) * v).sum(1) / (v.sum(1) ** 2 - v.square().sum(1))
        - 2 * ((u @ k_xy) * v).sum(1) / (u.sum(1) * v.sum(1))
    )


def _counts(indices: Tensor, n: int) -> Tensor:
    ones = torch.ones(indices.shape, dtype=torch.float64)
    return torch.zeros(len(indices), n, dtype=torch.float64).scatter_add_(1, indices, ones)


def _chunks(n: int, m: int, resamples: int) -> Iterator[tuple[Tensor, Tensor]]:
    first = resampled_indices(n, resamples, seed=0).split(_CHUNK)
    second = resampled_indices(m, resamples, seed=1).split(_CHUNK)
    return zip(first, second, strict=True)
