"""Statistics by hand and against scikit-learn: pytest tests/membership/test_statistics.py"""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu
from sklearn.metrics import roc_auc_score, roc_curve

from shortcut_lightning.membership import statistics
from shortcut_lightning.membership.base import Rule, first_column
from shortcut_lightning.membership.clid import (
    ALPHAS,
    CLiDThreshold,
    CLiDTrees,
    fit_threshold_rule,
    two_features,
)
from shortcut_lightning.membership.evaluator import Features, evaluate
from shortcut_lightning.membership.packets import read_pair, read_scores, write_scores
from shortcut_lightning.membership.reference import auc_on_grid, reference_table, tpr_on_grid

INSIDE = np.array([0.9, 0.8, 0.8, 0.4])
OUTSIDE = np.array([0.8, 0.5, 0.3, 0.1, 0.1])


def rows(n: int, shift: float, seed: int, columns: int = 5) -> np.ndarray:
    """Rows like CLiD's: losses around 0.09, discrepancies that members have more of."""
    rng = np.random.default_rng(seed)
    loss = 0.09 + 0.02 * rng.normal(size=(n, 1)) - 0.004 * shift
    return np.concatenate([loss, 2e-3 * (rng.normal(size=(n, columns - 1)) + shift)], 1)


def pair(n: int, shift: float, seed: int) -> Features:
    return Features(rows(n, shift, seed), rows(n, 0.0, seed + 1))


def labelled(sample: Features) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([1, 0], [len(each) for each in sample]), np.concatenate(sample)


def test_auc_by_hand_and_by_sklearn() -> None:
    # Pairs won: 0.9 all 5; 0.8 wins 4 and draws 1, twice; 0.4 wins 3.
    assert statistics.auc(INSIDE, OUTSIDE) == pytest.approx((5 + 4.5 + 4.5 + 3) / 20)
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 30, 200) + 3.0, rng.integers(0, 30, 350) + 0.0
    expected = roc_auc_score(*labelled(Features(inside, outside)))
    assert statistics.auc(inside, outside) == pytest.approx(expected, abs=1e-12)


def test_mann_whitney_is_exact_for_a_handful() -> None:
    low, high = np.array([0.1, 0.2]), np.array([0.3, 0.4])
    # Of the 6 ways to choose two of four scores, one is the best for members and one the worst.
    assert statistics.mann_whitney(high, low) == pytest.approx(1 / 6)
    assert statistics.mann_whitney(low, high) == 1.0
    assert statistics.mann_whitney(np.ones(3), np.zeros(3)) == pytest.approx(1 / 20)  # ties
    assert statistics.mann_whitney(np.ones(30), np.ones(30)) > 0.025
    rng = np.random.default_rng(0)
    sample = rng.normal(0.5, 1, 40), rng.normal(0, 1, 50)
    expected = mannwhitneyu(*sample, alternative="greater").pvalue
    assert statistics.mann_whitney(*sample) == pytest.approx(expected)


def test_both_directions_of_tpr_by_hand() -> None:
    # One of five hold-outs may be accused: the threshold is 0.5, above it 0.9, 0.8, 0.8.
    assert statistics.tpr_member(INSIDE, OUTSIDE, 0.2) == 0.75
    # None may: the threshold is 0.8, and a draw is no accusation.
    assert statistics.tpr_member(INSIDE, OUTSIDE, 0.19) == 0.25
    assert statistics.tpr_member(INSIDE, OUTSIDE, 1.0) == 1.0
    # A quarter of the members is one, 0.4: at or below it lie 0.3, 0.1, 0.1.
    assert statistics.tpr_holdout_ref(INSIDE, OUTSIDE, 0.25) == 0.6
    # Half of them needs 0.8 and takes its twin along.
    assert statistics.tpr_holdout_ref(INSIDE, OUTSIDE, 0.5) == 1.0


def test_swapping_labels_maps_one_direction_to_the_other() -> None:
    """Without ties, for shares that are whole numbers of images."""
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(1, 1, 200), rng.normal(0, 1, 200)
    for fpr in (0.01, 0.05, 0.5):
        reversed_ = statistics.tpr_member(-outside, -inside, fpr)
        # "at most x" stops below the first rejected member, "at least x" just includes it.
        below = statistics.tpr_holdout_ref(inside, outside, fpr)
        above = statistics.tpr_holdout_ref(inside, outside, fpr + 1 / 200)
        assert below <= reversed_ <= above


def test_roc_is_sklearns() -> None:
    rng = np.random.default_rng(2)
    sample = Features(rng.integers(0, 9, 50) + 2.0, rng.integers(0, 9, 70) + 0.0)
    fpr, tpr = statistics.roc(*sample)
    expected = roc_curve(*labelled(sample), drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected[0])
    np.testing.assert_allclose(tpr, expected[1])


def test_best_threshold_by_hand_and_by_search() -> None:
    tau = statistics.best_threshold(INSIDE, OUTSIDE)
    assert tau == pytest.approx(0.35)  # all members above; of the hold-outs 0.3, 0.1, 0.1 below
    assert statistics.accuracy(INSIDE, OUTSIDE, tau) == pytest.approx((1 + 0.6) / 2)
    rng = np.random.default_rng(3)
    inside, outside = rng.integers(0, 9, 40) + 2.0, rng.integers(0, 9, 60) + 0.0
    found = statistics.accuracy(inside, outside, statistics.best_threshold(inside, outside))
    best = max(statistics.accuracy(inside, outside, t) for t in np.arange(-1, 13, 0.25))
    assert found == pytest.approx(best)


def test_wilson_is_scipys_and_the_resolution_guide() -> None:
    for hits, n in ((4, 416), (25, 2500), (0, 10), (10, 10)):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert statistics.wilson(hits, n)[1:] == pytest.approx(tuple(expected), abs=1e-6)
    assert statistics.wilson(4, 416)[1:] == pytest.approx((0.0037, 0.0245), abs=1e-4)


def test_standard_errors() -> None:
    assert statistics.hanley_mcneil(0.961, 2500, 2500) == pytest.approx(0.0028, abs=1e-4)
    assert statistics.hanley_mcneil(0.933, 416, 416) == pytest.approx(0.0091, abs=2e-4)
    rng = np.random.default_rng(4)
    draws = [statistics.auc(rng.normal(size=40), rng.normal(size=25)) for _ in range(2000)]
    assert np.std(draws) == pytest.approx(statistics.null_error(40, 25), rel=0.08)


def test_alpha_zero_ranks_as_monte_carlo_and_one_as_the_discrepancy() -> None:
    shadow, target = pair(80, 1.0, 0), rows(50, 1.0, 7)
    loss_only = fit_threshold_rule(*shadow, alphas=[0.0])
    assert np.array_equal(np.argsort(loss_only(target)), np.argsort(-target[:, 0]))
    gap_only = fit_threshold_rule(*shadow, alphas=[1.0])
    assert np.array_equal(np.argsort(gap_only(target)), np.argsort(target[:, 1:].mean(1)))


def test_scaling_is_by_median_and_quartiles_of_both_shadow_sets() -> None:
    inside = np.array([[0.1, 0.0], [0.2, 0.2], [0.3, 0.4]])
    outside = np.array([[0.4, 0.6], [0.5, 0.8]])
    rule = fit_threshold_rule(inside, outside, alphas=[0.5])
    np.testing.assert_allclose(rule.centre, [-0.3, 0.4])
    np.testing.assert_allclose(rule.scale, [0.2, 0.4])
    np.testing.assert_allclose(rule(np.array([[0.1, 0.8]])), [0.5 * 1.0 + 0.5 * 1.0])


def test_affine_change_of_all_losses_changes_no_ranking() -> None:
    shadow, target = pair(60, 1.0, 0), pair(60, 1.0, 5)
    first = fit_threshold_rule(*shadow)

    def changed(features: np.ndarray) -> np.ndarray:  # loss -> 3 loss + 1, so D -> 3 D
        return 3 * features + np.eye(features.shape[1])[0]

    second = fit_threshold_rule(*map(changed, shadow))
    assert first.alpha == second.alpha
    np.testing.assert_allclose(first(target.members), second(changed(target.members)), atol=1e-9)


def test_log_ratio_is_the_log_of_the_quotient() -> None:
    features = np.array([[0.1, 0.1, 0.3]])  # losses 0.1, 0.2, 0.4
    rule = fit_threshold_rule(features, 2 * features, "log_ratio", [1.0])
    gap = (np.log(2) + np.log(4)) / 2
    assert rule(features)[0] * rule.scale[1] + rule.centre[1] == pytest.approx(gap)


def test_evaluation_tunes_on_the_shadow_alone() -> None:
    shadow, target = pair(120, 1.2, 0), pair(90, 1.2, 50)
    score = CLiDThreshold()
    result = evaluate(score.fit, shadow, target, resamples=200)
    rule = score.fit(*shadow)
    inside, outside = target.scored(rule)
    tau = statistics.best_threshold(*shadow.scored(rule))
    assert result.auc.value == pytest.approx(roc_auc_score(*labelled(Features(inside, outside))))
    assert result.auc.low < result.auc.value < result.auc.high
    assert result.tau == tau
    assert result.tuned["alpha"] in ALPHAS
    assert result.asr.value == pytest.approx(((inside > tau).mean() + (outside <= tau).mean()) / 2)
    assert result.realised_fpr == statistics.wilson(int((outside > tau).sum()), 90)
    rate = result.rate(0.1)
    assert rate.support == "few"
    assert rate.tpr_member.value == statistics.tpr_member(inside, outside, 0.1)
    assert rate.tpr_holdout_ref.value == statistics.tpr_holdout_ref(inside, outside, 0.1)
    assert rate.threshold == statistics.threshold_at(shadow.scored(rule).holdouts, 0.1)
    # 0.1 % of 90 hold-outs is no hold-out: refused, and said so.
    assert result.rate(0.001).support == "refused"
    assert np.isnan(result.rate(0.001).tpr_member.value)
    assert any("0.1% FPR is refused" in note for note in result.notes)


def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    """Of 95 % intervals for a known AUC, about 95 % hold it."""
    truth, held = 0.7602, 0  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        target = Features(rng.normal(1, 1, (60, 1)), rng.normal(0, 1, (60, 1)))
        result = evaluate(
            lambda *_: lambda f: f[:, 0], target, target, resamples=200, seed=seed, fprs=()
        )
        held += result.auc.low <= truth <= result.auc.high
    assert 51 <= held <= 60


def test_trees_say_that_they_are_not_retrained() -> None:
    shadow, target = pair(80, 1.5, 0), pair(60, 1.5, 9)
    score = CLiDTrees()
    first, second = (
        evaluate(score.fit, shadow, target, resamples=50, refit=False) for _ in range(2)
    )
    assert first.auc == second.auc
    assert first.auc.value > 0.8
    assert any("not trained anew" in note for note in first.notes)


def test_an_empty_class_is_an_error() -> None:
    some = pair(10, 1.0, 0)
    with pytest.raises(ValueError, match=r"0 hold-out images.*audit\.nonmembers"):
        evaluate(CLiDThreshold().fit, some, Features(some.members, some.holdouts[:0]))
    with pytest.raises(ValueError, match=r"0 shadow member images"):
        evaluate(CLiDThreshold().fit, Features(some.members[:0], some.holdouts), some)


def test_reference_conventions_differ_as_described() -> None:
    rng = np.random.default_rng(5)
    inside, outside = rng.normal(1, 1, 2500), rng.normal(0, 1, 2500)
    exact = statistics.auc(inside, outside)
    assert abs(auc_on_grid(inside, outside) - exact) < 1e-3
    few = auc_on_grid(inside[:50], outside[:50]) - statistics.auc(inside[:50], outside[:50])
    assert few < 0  # corners are missing
    ours = statistics.tpr_holdout_ref(inside, outside, 0.01)
    assert tpr_on_grid(inside, outside, 0.01) == pytest.approx(ours, abs=0.01)
    table = reference_table(pair(300, 1.0, 0), pair(300, 1.0, 11))
    assert [row.alpha for row in table] == list(ALPHAS)
    assert all(row.asr <= row.best_asr for row in table)


def test_score_files_round_trip(tmp_path: Path) -> None:
    features = rows(20, 1.0, 0)
    inside, outside = tmp_path / "member.txt", tmp_path / "holdout.txt"
    write_scores(features, inside)
    write_scores(rows(15, 0.0, 1), outside)
    assert inside.read_text().splitlines()[0].count("\t") == 4
    sample = read_pair(inside, outside)
    np.testing.assert_allclose(sample.members, features, rtol=5e-5)
    assert len(read_pair(inside, outside, drop_first_row=True).members) == 19
    inside.write_text("cond0\tD1\tD2\tD3\tDnull\n" + inside.read_text())
    np.testing.assert_array_equal(read_scores(inside), sample.members)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1\t0.2\n0.1\n", r"row 2: 1 columns, but 2"),
        ("0.1\t0.2\n0.1\tnan\n", r"row 2: expected finite numbers"),
        ("0.1\t0.2\nx\ty\n", r"row 2: expected finite numbers"),
        ("", r"no rows of scores"),
    ],
)
def test_bad_score_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_scores(tmp_path / "bad.txt")


def test_log_ratios_are_calibrated_by_quotients() -> None:
    rng = np.random.default_rng(5)
    target, base = (np.abs(rng.normal(0.1, 0.02, (6, 3))) for _ in range(2))
    score = CLiDThreshold(discrepancy="log_ratio")
    found = two_features(score.calibrated(target, base), "log_ratio")
    ratios = [two_features(rows, "log_ratio")[:, 1] for rows in (target, base)]
    np.testing.assert_allclose(found[:, 1], ratios[0] - ratios[1])
    np.testing.assert_allclose(found[:, 0], -target[:, 0] / base[:, 0])
    np.testing.assert_allclose(CLiDThreshold().calibrated(target, base), target - base)


def plain_column(members: np.ndarray, holdouts: np.ndarray) -> Rule:
    return first_column


def test_a_threshold_that_missed_its_rate_is_told() -> None:
    rng = np.random.default_rng(0)
    shadow = Features(rng.normal(1, 1, (200, 1)), rng.normal(0, 1, (200, 1)))
    target = Features(rng.normal(3, 1, (200, 1)), rng.normal(2, 1, (200, 1)))
    notes = evaluate(plain_column, shadow, target, fprs=(0.1,), resamples=100).notes
    assert any("set for 10.0% false accusations missed its rate: it accuses" in n for n in notes)
    same = evaluate(plain_column, shadow, shadow, fprs=(0.1,), resamples=100).notes
    assert not any("missed" in note for note in same)
