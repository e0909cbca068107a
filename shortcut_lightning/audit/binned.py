"""The bootstrap of sets so large that to draw every row again would take hours: on counts.

Scores are put into bins, and those of one bin count as equal. A resample of n rows is then one
multinomial draw of the bins' counts, which costs the number of bins and not n. The bins hold equal
shares of every group, and are narrow around the ranks where the thresholds of the reported shares
lie, so that a bin is small beside the spread of the resampled threshold. Scores with few distinct
values lose nothing.
"""

from collections.abc import Iterator, Sequence

import numpy as np

LARGE = 50_000  # rows of all groups together, from which counts take the place of rows
BINS = 1024  # of each group
NEAR = 256  # more around each reported share
DEVIATIONS = 8.0  # how far from it they reach, in standard errors of its rank
_CELLS = 2_000_000  # counts held at a time

Groups = Sequence[np.ndarray]  # four: shadow members, shadow hold-outs, members, hold-outs


def bootstrap(
    groups: Groups, points: Sequence[float], fprs: Sequence[float], resamples: int, seed: int
) -> np.ndarray:
    """(resamples, 2 + 2 x shares): AUC, ASR at the shadow's tau, then for every share both
    directions of TPR, as `evaluator` has them.

    Args:
        groups: Scores (N,) of shadow members, shadow hold-outs, members and hold-outs.
        points: The same numbers of the scores themselves, unbinned; what the bins change in them
            is taken off the samples.
        fprs: The shares.
        resamples: How many.
        seed: Of the draws.
    """
    edges = _edges(groups, fprs)
    counts = [
        np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1) for scores in groups
    ]
    rng = np.random.default_rng(seed)
    samples = np.concatenate(
        [
            _numbers([_drawn(rng, each, size) for each in counts], fprs)
            for size in _sizes(resamples, len(edges) + 1)
        ]
    )
    binned = _numbers([each[None] for each in counts], fprs)
    return samples + (np.array(points) - binned)


def _sizes(resamples: int, bins: int) -> Iterator[int]:
    most = max(1, _CELLS // bins)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def _drawn(rng: np.random.Generator, counts: np.ndarray, size: int) -> np.ndarray:
    total = int(counts.sum())
    return rng.multinomial(total, counts / total, size=size)


def _edges(groups: Groups, fprs: Sequence[float]) -> np.ndarray:
    """Upper ends of the bins but the last."""
    ordered = [np.sort(scores) for scores in groups]
    members, holdouts = ordered[2:]
    edges = [each[np.linspace(0, len(each) - 1, BINS).astype(int)] for each in ordered]
    for fpr in fprs:
        edges.append(holdouts[_ranks(len(holdouts), 1 - fpr)])
        edges.append(members[_ranks(len(members), fpr)])
    return np.unique(np.concatenate(edges))


def _ranks(rows: int, share: float) -> np.ndarray:
    """Places of an ordered group around the one below which this share of it lies."""
    reach = DEVIATIONS * np.sqrt(rows * share * (1 - share)) + 1
    places = rows * share + np.linspace(-reach, reach, NEAR)
    return np.clip(places, 0, rows - 1).astype(int)


def _numbers(counts: Sequence[np.ndarray], fprs: Sequence[float]) -> np.ndarray:
    """(R, 2 + 2 x shares) from (R, bins) counts of the four groups."""
    shadow_m, shadow_h, members, holdouts = (each.cumsum(1) for each in counts)  # at or below
    m, h = members[:, -1:], holdouts[:, -1:]
    equal = holdouts - counts[3] / 2
    columns = [(counts[2] * equal).sum(1) / (m * h)[:, 0]]

    gain = shadow_h / shadow_h[:, -1:] - shadow_m / shadow_m[:, -1:]
    tau = gain.argmax(1)[:, None]
    caught, cleared = 1 - _at(members, tau) / m, _at(holdouts, tau) / h
    columns.append((caught + cleared)[:, 0] / 2)
    for fpr in fprs:
        allowed = np.floor(fpr * h + 1e-9)
        threshold = (h - holdouts <= allowed).argmax(1)[:, None]
        columns.append((1 - _at(members, threshold) / m)[:, 0])
        wanted = np.maximum(1, np.ceil(fpr * m - 1e-9))
        threshold = (members >= wanted).argmax(1)[:, None]
        columns.append((_at(holdouts, threshold) / h)[:, 0])
    return np.stack(columns, 1)


def _at(below: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.take_along_axis(below, place, 1)
