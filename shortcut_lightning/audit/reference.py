"""The numbers as CLiD's published code computes them, for comparison with its tables only.

Against the exact numbers: the area misses its corners, "TPR at 1 % FPR" has the roles reversed (see
`roc.tpr_holdout_ref`), thresholds lie on a grid of 2000 and the first row of every file is
lost to a header that is not there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from shortcut_lightning.audit.evaluator import Features
from shortcut_lightning.membership.clid import ALPHAS, ThresholdRule, fit_threshold_rule
from shortcut_lightning.membership.roc import accuracy

POINTS = 2000


class ReferenceNumbers(NamedTuple):
    """One row of a table in the reference's conventions, as shares of one."""

    alpha: float
    shadow_auc: float
    auc: float
    tpr_holdout_ref: float  # at 1 %
    asr: float  # at the shadow's threshold
    best_asr: float  # at the target's own, which no attacker has


def reference_table(
    shadow: Features, target: Features, alphas: Sequence[float] = ALPHAS
) -> list[ReferenceNumbers]:
    """One row per alpha for CLiD's columns; the reference reports the best by `shadow_auc`.

    The features are used as given; see `score_formats.read_scores` for the lost row.
    """
    rows = []
    for alpha in alphas:
        rule = fit_threshold_rule(*shadow, alphas=[alpha])
        rows.append(_row(rule, shadow, target))
    return rows


def _row(rule: ThresholdRule, shadow: Features, target: Features) -> ReferenceNumbers:
    tuning, scores = shadow.scored(rule), target.scored(rule)
    return ReferenceNumbers(
        alpha=rule.alpha,
        shadow_auc=auc_on_grid(*tuning),
        auc=auc_on_grid(*scores),
        tpr_holdout_ref=tpr_on_grid(*scores, 0.01),
        asr=accuracy(*scores, tau_on_grid(*tuning)),
        best_asr=accuracy(*scores, tau_on_grid(*scores)),
    )


def grid(members: np.ndarray, holdouts: np.ndarray) -> np.ndarray:
    """2000 equally spaced thresholds from the smallest score up to, not including, the largest."""
    scores = np.concatenate([members, holdouts])
    return np.linspace(scores.min(), scores.max(), POINTS, endpoint=False)


def curve_on_grid(members: np.ndarray, holdouts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of members and of hold-outs rejected, at or below each threshold, rising."""
    thresholds = grid(members, holdouts)
    return (
        np.searchsorted(np.sort(members), thresholds, "right") / len(members),
        np.searchsorted(np.sort(holdouts), thresholds, "right") / len(holdouts),
    )


def auc_on_grid(members: np.ndarray, holdouts: np.ndarray) -> float:
    """Trapezoids between the grid's points, without the segments to the corners."""
    rejected_members, rejected_holdouts = curve_on_grid(members, holdouts)
    return float(trapezoid(rejected_holdouts, rejected_members))


def tpr_on_grid(members: np.ndarray, holdouts: np.ndarray, fpr: float) -> float:
    """Share of hold-outs rejected at the first point where a share `fpr` of members is."""
    rejected_members, rejected_holdouts = curve_on_grid(members, holdouts)
    reached = np.flatnonzero(rejected_members >= fpr)
    return float(rejected_holdouts[reached[0]]) if len(reached) else 1.0


def tau_on_grid(members: np.ndarray, holdouts: np.ndarray) -> float:
    """The first threshold of the grid with the best accuracy."""
    rejected_members, rejected_holdouts = curve_on_grid(members, holdouts)
    best = int(np.argmax((1 - rejected_members) * len(members) + rejected_holdouts * len(holdouts)))
    return float(grid(members, holdouts)[best])
