"""Numbers about two samples of scores, members and hold-outs, high = member."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def auc(members: np.ndarray, holdouts: np.ndarray) -> float:
    """P(member > hold-out) + P(equal) / 2, exactly."""
    ordered = np.sort(holdouts)
    below = np.searchsorted(ordered, members, "left")
    not_above = np.searchsorted(ordered, members, "right")
    return float((below + not_above).mean() / (2 * len(holdouts)))


def placements(members: np.ndarray, holdouts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each member the share of hold-outs below it, for each hold-out the share of members above
    it, equals by half; both have the AUC as their mean."""
    return _share_below(members, holdouts), _share_below(-holdouts, -members)


def _share_below(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    below = np.searchsorted(ordered, some, "left")
    return (below + np.searchsorted(ordered, some, "right")) / (2 * len(others))


def paired_error(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> float:
    """Standard error of the difference of the AUCs of two scores, each (members, hold-outs), of
    the same images (DeLong, DeLong and Clarke-Pearson 1988)."""
    both = zip(placements(*first), placements(*second), strict=True)
    return float(np.sqrt(sum((one - other).var(ddof=1) / len(one) for one, other in both)))


def mann_whitney(members: np.ndarray, holdouts: np.ndarray) -> float:
    """One-sided p: how often chance alone puts the members as high above the hold-outs.

    Exact where a set has at most eight images, as if no scores were equal.
    """
    from scipy.stats import mannwhitneyu

    few = min(len(members), len(holdouts)) <= 8
    method = "exact" if few else "asymptotic"
    return float(mannwhitneyu(members, holdouts, alternative="greater", method=method).pvalue)


def tpr_member(members: np.ndarray, holdouts: np.ndarray, fpr: float) -> float:
    """Share of members caught when at most a share `fpr` of hold-outs is accused."""
    return float((members > threshold_at(holdouts, fpr)).mean())


def threshold_at(holdouts: np.ndarray, fpr: float) -> float:
    """Scores strictly above it belong to at most a share `fpr` of the hold-outs."""
    allowed = int(np.floor(fpr * len(holdouts) + 1e-9))
    if allowed >= len(holdouts):
        return -np.inf
    return float(np.partition(holdouts, len(holdouts) - allowed - 1)[-allowed - 1])


def tpr_holdout_ref(members: np.ndarray, holdouts: np.ndarray, fpr: float) -> float:
    """Share of hold-outs rejected where at least a share `fpr` of members is.

    The first point of the curve with so many members rejected, both counted at or below the
    threshold. This is the number CLiD, PFAMI and SimA print as "TPR at 1 % FPR"; it says nothing
    about false accusations.
    """
    wanted = max(1, int(np.ceil(fpr * len(members) - 1e-9)))
    threshold = np.partition(members, wanted - 1)[wanted - 1]
    return float((holdouts <= threshold).mean())


def best_threshold(members: np.ndarray, holdouts: np.ndarray) -> float:
    """The tau of the largest mean of the shares above tau (members) and at or below it (hold-outs).

    Half-way between two neighbouring scores; of equally good ones the middle one.
    """
    scores = np.concatenate([members, holdouts])
    gain = np.concatenate(
        [np.full(len(members), 1 / len(members)), np.full(len(holdouts), -1 / len(holdouts))]
    )
    order = np.argsort(scores)
    ordered = scores[order]
    # Value at position i: what is left above when the first i scores are not members.
    left = np.concatenate([[0.0], -np.cumsum(gain[order])])
    ends = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # not between ties
    places = np.flatnonzero(ends)
    best = places[left[places] >= left[places].max() - 1e-12]
    place = best[len(best) // 2]
    padded = np.concatenate([[ordered[0] - 1.0], ordered, [ordered[-1] + 1.0]])
    return float((padded[place] + padded[place + 1]) / 2)


def accuracy(members: np.ndarray, holdouts: np.ndarray, tau: float) -> float:
    """Attack success rate: the mean of both sets' shares on their side of tau."""
    return float(((members > tau).mean() + (holdouts <= tau).mean()) / 2)


def wilson(hits: int, n: int, z: float = 1.959964) -> Interval:
    """The share hits / n with Wilson's score interval."""
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def null_error(members: int, holdouts: int) -> float:
    """Standard error of an AUC when both samples have the same distribution."""
    return float(np.sqrt((members + holdouts + 1) / (12 * members * holdouts)))


def hanley_mcneil(value: float, members: int, holdouts: int) -> float:
    """Standard error of an AUC (Hanley and McNeil 1982)."""
    both_members, both_holdouts = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value)
    variance += (members - 1) * (both_members - value**2)
    variance += (holdouts - 1) * (both_holdouts - value**2)
    return float(np.sqrt(max(variance, 0.0) / (members * holdouts)))


def roc(members: np.ndarray, holdouts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates from (0, 0) to (1, 1), one point per distinct score."""
    scores = np.concatenate([members, holdouts])
    labels = np.repeat([1, 0], [len(members), len(holdouts)])
    order = np.argsort(-scores, kind="stable")
    ends = np.append(scores[order][1:] < scores[order][:-1], True)
    caught, accused = np.cumsum(labels[order])[ends], np.cumsum(1 - labels[order])[ends]
    return np.append(0.0, accused / len(holdouts)), np.append(0.0, caught / len(members))
