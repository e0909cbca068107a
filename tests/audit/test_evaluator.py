"""Rules, evaluation and score files: pytest tests/audit/test_evaluator.py"""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from shortcut_lightning.audit.evaluator import Features, evaluate
from shortcut_lightning.audit.reference import auc_on_grid, reference_table, tpr_on_grid
from shortcut_lightning.audit.score_formats import read_pair, read_scores, write_scores
from shortcut_lightning.membership import roc
from shortcut_lightning.membership.base import Rule, first_column
from shortcut_lightning.membership.clid import (
    ALPHAS,
    CLiDThreshold,
    CLiDTrees,
    fit_threshold_rule,
    two_features,
)

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
    tau = roc.best_threshold(*shadow.scored(rule))
    assert result.auc.value == pytest.approx(roc_auc_score(*labelled(Features(inside, outside))))
    assert result.auc.low < result.auc.value < result.auc.high
    assert result.tau == tau
    assert result.tuned["alpha"] in ALPHAS
    assert result.asr.value == pytest.approx(((inside > tau).mean() + (outside <= tau).mean()) / 2)
    assert result.realised_fpr == roc.wilson(int((outside > tau).sum()), 90)
    rate = result.rate(0.1)
    assert rate.support == "few"
    assert rate.tpr_member.value == roc.tpr_member(inside, outside, 0.1)
    assert rate.tpr_holdout_ref.value == roc.tpr_holdout_ref(inside, outside, 0.1)
    assert rate.threshold == roc.threshold_at(shadow.scored(rule).holdouts, 0.1)
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
    exact = roc.auc(inside, outside)
    assert abs(auc_on_grid(inside, outside) - exact) < 1e-3
    few = auc_on_grid(inside[:50], outside[:50]) - roc.auc(inside[:50], outside[:50])
    assert few < 0  # corners are missing
    ours = roc.tpr_holdout_ref(inside, outside, 0.01)
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
    own = evaluate(plain_column, shadow, target, fprs=(0.1,), resamples=100, has_shadow=False).notes
    blamed = [["answers differently" in note for note in told] for told in (notes, own)]
    assert blamed == [[True], [False]]


def test_a_threshold_misses_its_rate_by_chance_as_seldom_as_it_may() -> None:
    """It was estimated itself, from as few hold-outs as it is judged on."""
    rng, told, audits = np.random.default_rng(1), 0, 100
    for _ in range(audits):
        shadow, target = (
            Features(rng.normal(1, 1, (60, 1)), rng.normal(0, 1, (60, 1))) for _ in range(2)
        )
        notes = evaluate(plain_column, shadow, target, resamples=2).notes
        told += sum("missed" in note for note in notes)
    assert told <= 0.025 * 2 * audits  # 10 % and 1 %; 0.1 % of 60 hold-outs is refused
