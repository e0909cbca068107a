"""From features to numbers that can be signed: nothing is tuned on the images it is judged on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from shortcut_lightning.audit import binned
from shortcut_lightning.membership import roc
from shortcut_lightning.membership.base import Rule, first_column
from shortcut_lightning.membership.roc import Interval

Fit = Callable[[np.ndarray, np.ndarray], Rule]
FPRS = (0.1, 0.01, 0.001)
ENOUGH = 10  # hold-outs that may be accused, for a rate at that share to be taken at its word
RESAMPLES = 1000
SURPRISING = 0.025  # one-sided p from which a threshold's rate is said to be missed


class Features(NamedTuple):
    """What a score measured on one model: (N, F) for members and for hold-outs."""

    members: np.ndarray
    holdouts: np.ndarray

    def minus(self, other: "Features") -> "Features":
        """Row by row; the same images on another model."""
        return Features(self.members - other.members, self.holdouts - other.holdouts)

    def scored(self, rule: Rule) -> "Features":
        """(N,) scores, high = member."""
        return Features(rule(self.members), rule(self.holdouts))


@dataclass(frozen=True)
class Rate:
    """What is caught at one share of false accusations.

    `support` is "enough" from ten accusable hold-outs on, "few" below, and "refused" where not one
    hold-out may be accused; then the numbers are NaN.
    """

    fpr: float
    support: str
    tpr_member: Interval  # members caught when at most this share of hold-outs is accused
    tpr_holdout_ref: Interval  # CLiD's column: hold-outs rejected when this share of members is
    threshold: float  # set on the shadow model for this share
    realised_fpr: Interval  # what it came to, Wilson
    realised_tpr: Interval
    p_missed: float  # of accusing so many more than where it was set, by chance; see `missed`


@dataclass(frozen=True)
class Evaluation:
    """One score judged. Intervals are 95 %; `tau` and all else tuned come from the shadow."""

    n_members: int
    n_holdouts: int
    auc: Interval
    p_value: float  # one-sided Mann-Whitney: members higher, with the rule as fitted
    p_reversed: float  # the same for members lower
    asr: Interval  # accuracy at tau, mean of both sets
    tau: float
    realised_fpr: Interval  # at tau, Wilson
    realised_tpr: Interval  # at tau, Wilson
    rates: list[Rate]
    tuned: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def rate(self, fpr: float) -> Rate:
        """The rate at this share."""
        return next(each for each in self.rates if each.fpr == fpr)


def evaluate(
    fit: Fit,
    shadow: Features,
    target: Features,
    *,
    fprs: Sequence[float] = FPRS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    refit: bool = True,
    has_shadow: bool = True,
) -> Evaluation:
    """Fits the rule and tau on `shadow`, judges them on `target`.

    The bootstrap resamples the four groups of rows separately. With `refit` it fits the rule anew
    each time, as it always does tau; without, and where there are so many rows that counts take
    their place (see `binned`), the intervals hold for the rule as fitted. `has_shadow` says whether
    `shadow` was measured on a model of its own, and not on other images of the target.

    Raises ValueError when a group is empty.
    """
    for name, rows in zip(("member", "hold-out"), target, strict=True):
        if len(rows) < 2:
            raise ValueError(
                f"{len(rows)} {name} images are left to judge on; at least two are needed, and "
                "hundreds for numbers worth having (audit.members, audit.nonmembers)."
            )
    for name, rows in zip(("member", "hold-out"), shadow, strict=True):
        if len(rows) < 2:
            raise ValueError(
                f"{len(rows)} shadow {name} images are left to tune on; at least two are needed "
                "(audit.shadow_members, audit.shadow_nonmembers)."
            )
    rule = fit(*shadow)
    refit = refit and not is_large(shadow, target)
    points = _numbers(rule, shadow, target, fprs)
    samples = _bootstrap(fit if refit else None, rule, shadow, target, fprs, resamples, seed)
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    intervals = [Interval(*each) for each in zip(points, low, high, strict=True)]

    tuning, scores = shadow.scored(rule), target.scored(rule)
    tau = roc.best_threshold(*tuning)
    rates = []
    for place, fpr in enumerate(fprs):
        threshold = roc.threshold_at(tuning.holdouts, fpr)
        allowed = fpr * len(scores.holdouts)
        support = "enough" if allowed >= ENOUGH else "few" if allowed >= 1 else "refused"
        caught, rejected = intervals[2 + 2 * place], intervals[3 + 2 * place]
        if support == "refused":
            caught = Interval(np.nan, np.nan, np.nan)
        if fpr * len(scores.members) < 1:
            rejected = Interval(np.nan, np.nan, np.nan)
        rates.append(
            Rate(
                fpr,
                support,
                caught,
                rejected,
                threshold,
                _share_above(scores.holdouts, threshold),
                _share_above(scores.members, threshold),
                missed(tuning.holdouts, scores.holdouts, threshold),
            )
        )
    return Evaluation(
        n_members=len(scores.members),
        n_holdouts=len(scores.holdouts),
        auc=intervals[0],
        p_value=roc.mann_whitney(*scores),
        p_reversed=roc.mann_whitney(*scores[::-1]),
        asr=intervals[1],
        tau=tau,
        realised_fpr=_share_above(scores.holdouts, tau),
        realised_tpr=_share_above(scores.members, tau),
        rates=rates,
        tuned={"alpha": rule.alpha} if hasattr(rule, "alpha") else {},
        notes=notes(rates, len(scores.holdouts), refit or rule is first_column, has_shadow),
    )


def is_large(*groups: Features) -> bool:
    """Whether there are so many rows that intervals come from counts."""
    return sum(len(rows) for group in groups for rows in group) >= binned.LARGE


def _numbers(rule: Rule, shadow: Features, target: Features, fprs: Sequence[float]) -> list[float]:
    """AUC, ASR at the shadow's tau, then both directions of TPR for every share."""
    tau = roc.best_threshold(*shadow.scored(rule))
    scores = target.scored(rule)
    numbers = [roc.auc(*scores), roc.accuracy(*scores, tau)]
    for fpr in fprs:
        numbers.append(roc.tpr_member(*scores, fpr))
        numbers.append(roc.tpr_holdout_ref(*scores, fpr))
    return numbers


def _bootstrap(
    fit: Fit | None,
    rule: Rule,
    shadow: Features,
    target: Features,
    fprs: Sequence[float],
    resamples: int,
    seed: int,
) -> np.ndarray:
    """(resamples, numbers): stratified, the four groups apart."""
    rng = np.random.default_rng(seed)
    if fit is None:  # the scores will not change: resample them, not the features behind them
        shadow, target = (
            Features(*(scores[:, None] for scores in group.scored(rule)))
            for group in (shadow, target)
        )
        rule = first_column
        if is_large(shadow, target):
            groups = [rows[:, 0] for rows in (*shadow, *target)]
            points = _numbers(rule, shadow, target, fprs)
            return binned.bootstrap(groups, points, fprs, resamples, seed)
    samples = []
    for _ in range(resamples):
        drawn = [rows[rng.integers(len(rows), size=len(rows))] for rows in (*shadow, *target)]
        tuning, judged = Features(*drawn[:2]), Features(*drawn[2:])
        samples.append(_numbers(fit(*tuning) if fit else rule, tuning, judged, fprs))
    return np.array(samples)


def _share_above(scores: np.ndarray, threshold: float) -> Interval:
    return roc.wilson(int((scores > threshold).sum()), len(scores))


def missed(tuning: np.ndarray, judged: np.ndarray, threshold: float) -> float:
    """One-sided p that hold-outs like those (N,) of the tuning lie above its threshold so often as
    the judged (M,) do: Fisher's exact test, since the threshold is itself an estimate."""
    from scipy.stats import hypergeom

    before, now = int((tuning > threshold).sum()), int((judged > threshold).sum())
    return float(hypergeom.sf(now - 1, len(tuning) + len(judged), before + now, len(judged)))


def notes(
    rates: Sequence[Rate], holdouts: int, refit: bool = True, has_shadow: bool = True
) -> list[str]:
    """What a reader of the rates must know; `refit` says whether the bootstrap fitted all that was
    fitted, `has_shadow` whether thresholds come from another model."""
    notes = []
    for rate in rates:
        needed = int(np.ceil(ENOUGH / rate.fpr))
        if rate.support == "refused":
            notes.append(
                f"TPR at {rate.fpr:.1%} FPR is refused: it needs {needed} hold-outs for a sound "
                f"number and {int(np.ceil(1 / rate.fpr))} for any; there are {holdouts}."
            )
        elif rate.support == "few":
            notes.append(
                f"TPR at {rate.fpr:.1%} FPR rests on {int(rate.fpr * holdouts)} of {holdouts} "
                f"hold-outs; a sound number needs {needed}."
            )
        if rate.support != "refused" and rate.p_missed < SURPRISING:
            why = "; the model it was set on answers differently from the audited one"
            notes.append(
                f"The threshold set for {rate.fpr:.1%} false accusations missed its rate: it "
                f"accuses {rate.realised_fpr.value:.1%} ({rate.realised_fpr.low:.1%} to "
                f"{rate.realised_fpr.high:.1%}) of the non-members, beyond chance"
                f"{why if has_shadow else ''}."
            )
    if not refit:
        notes.append("Intervals hold for the classifier as trained; it was not trained anew.")
    return notes
