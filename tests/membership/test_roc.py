"""Rates and areas by hand, against scikit-learn and scipy: pytest tests/membership/test_roc.py"""

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu
from sklearn.metrics import roc_auc_score, roc_curve

from shortcut_lightning.membership import roc

INSIDE = np.array([0.9, 0.8, 0.8, 0.4])
OUTSIDE = np.array([0.8, 0.5, 0.3, 0.1, 0.1])


def labelled(members: np.ndarray, holdouts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([1, 0], [len(members), len(holdouts)]), np.concatenate([members, holdouts])


def test_auc_by_hand_and_by_sklearn() -> None:
    # Pairs won: 0.9 all 5; 0.8 wins 4 and draws 1, twice; 0.4 wins 3.
    assert roc.auc(INSIDE, OUTSIDE) == pytest.approx((5 + 4.5 + 4.5 + 3) / 20)
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 30, 200) + 3.0, rng.integers(0, 30, 350) + 0.0
    expected = roc_auc_score(*labelled(inside, outside))
    assert roc.auc(inside, outside) == pytest.approx(expected, abs=1e-12)


def test_mann_whitney_is_exact_for_a_handful() -> None:
    low, high = np.array([0.1, 0.2]), np.array([0.3, 0.4])
    # Of the 6 ways to choose two of four scores, one is the best for members and one the worst.
    assert roc.mann_whitney(high, low) == pytest.approx(1 / 6)
    assert roc.mann_whitney(low, high) == 1.0
    assert roc.mann_whitney(np.ones(3), np.zeros(3)) == pytest.approx(1 / 20)  # ties
    assert roc.mann_whitney(np.ones(30), np.ones(30)) > 0.025
    rng = np.random.default_rng(0)
    sample = rng.normal(0.5, 1, 40), rng.normal(0, 1, 50)
    expected = mannwhitneyu(*sample, alternative="greater").pvalue
    assert roc.mann_whitney(*sample) == pytest.approx(expected)


def test_both_directions_of_tpr_by_hand() -> None:
    # One of five hold-outs may be accused: the threshold is 0.5, above it 0.9, 0.8, 0.8.
    assert roc.tpr_member(INSIDE, OUTSIDE, 0.2) == 0.75
    # None may: the threshold is 0.8, and a draw is no accusation.
    assert roc.tpr_member(INSIDE, OUTSIDE, 0.19) == 0.25
    assert roc.tpr_member(INSIDE, OUTSIDE, 1.0) == 1.0
    # A quarter of the members is one, 0.4: at or below it lie 0.3, 0.1, 0.1.
    assert roc.tpr_holdout_ref(INSIDE, OUTSIDE, 0.25) == 0.6
    # Half of them needs 0.8 and takes its twin along.
    assert roc.tpr_holdout_ref(INSIDE, OUTSIDE, 0.5) == 1.0


def test_swapping_labels_maps_one_direction_to_the_other() -> None:
    """Without ties, for shares that are whole numbers of images."""
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(1, 1, 200), rng.normal(0, 1, 200)
    for fpr in (0.01, 0.05, 0.5):
        reversed_ = roc.tpr_member(-outside, -inside, fpr)
        # "at most x" stops below the first rejected member, "at least x" just includes it.
        below = roc.tpr_holdout_ref(inside, outside, fpr)
        above = roc.tpr_holdout_ref(inside, outside, fpr + 1 / 200)
        assert below <= reversed_ <= above


def test_roc_is_sklearns() -> None:
    rng = np.random.default_rng(2)
    sample = rng.integers(0, 9, 50) + 2.0, rng.integers(0, 9, 70) + 0.0
    fpr, tpr = roc.roc(*sample)
    expected = roc_curve(*labelled(*sample), drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected[0])
    np.testing.assert_allclose(tpr, expected[1])


def test_best_threshold_by_hand_and_by_search() -> None:
    tau = roc.best_threshold(INSIDE, OUTSIDE)
    assert tau == pytest.approx(0.35)  # all members above; of the hold-outs 0.3, 0.1, 0.1 below
    assert roc.accuracy(INSIDE, OUTSIDE, tau) == pytest.approx((1 + 0.6) / 2)
    rng = np.random.default_rng(3)
    inside, outside = rng.integers(0, 9, 40) + 2.0, rng.integers(0, 9, 60) + 0.0
    found = roc.accuracy(inside, outside, roc.best_threshold(inside, outside))
    best = max(roc.accuracy(inside, outside, t) for t in np.arange(-1, 13, 0.25))
    assert found == pytest.approx(best)


def test_wilson_is_scipys_and_the_resolution_guide() -> None:
    for hits, n in ((4, 416), (25, 2500), (0, 10), (10, 10)):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert roc.wilson(hits, n)[1:] == pytest.approx(tuple(expected), abs=1e-6)
    assert roc.wilson(4, 416)[1:] == pytest.approx((0.0037, 0.0245), abs=1e-4)


def test_standard_errors() -> None:
    assert roc.hanley_mcneil(0.961, 2500, 2500) == pytest.approx(0.0028, abs=1e-4)
    assert roc.hanley_mcneil(0.933, 416, 416) == pytest.approx(0.0091, abs=2e-4)
    rng = np.random.default_rng(4)
    draws = [roc.auc(rng.normal(size=40), rng.normal(size=25)) for _ in range(2000)]
    assert np.std(draws) == pytest.approx(roc.null_error(40, 25), rel=0.08)
