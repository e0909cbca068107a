"""Scores that others measured, judged as an audit's own; no picture is opened, no model asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shortcut_lightning.audit import controls
from shortcut_lightning.audit.dataset_inference import DatasetTest, dataset_test
from shortcut_lightning.audit.evaluator import Evaluation, Features, evaluate, notes
from shortcut_lightning.audit.result import AuditResult, Judged
from shortcut_lightning.audit.score_files import Measured
from shortcut_lightning.audit.verdict import verdict
from shortcut_lightning.membership.base import Rule, first_column
from shortcut_lightning.membership.clid import CLiDThreshold

Fit = Callable[[np.ndarray, np.ndarray], Rule]
LEAST = 10  # rows of each set for the test of the whole
MOST = 5_000  # rows of each set that it takes
CLID_TH = "CLiD_th"
LEFT_OUT = [
    "The pictures most surely members: they are shown from pictures (audit.members).",
    "Baselines without a model, which look for differences in captions, pictures and files: they "
    "need pictures (audit.members, audit.nonmembers).",
    "Caption controls, and deciding image by image with few queries: they ask the model "
    "(audit.target).",
]


@dataclass(frozen=True)
class Options:
    """What an audit's settings say of its statistics."""

    fprs: Sequence[float]
    resamples: int
    permutations: int
    seed: int
    dataset: bool
    headline: str


def judge(measured: Measured, options: Options) -> AuditResult:
    """The audit of scores: each column for itself, CLiD's columns as CLiD too, and several columns
    as features of the set.

    Where there is no shadow, thresholds are set on one half of the rows and judged on the other,
    while what needs no threshold, AUC and TPR, is of all rows. A rule that is fitted (CLiD's) takes
    one half away for good, from every column.

    Raises ValueError for a headline that is no column.
    """
    rows = _numbers(measured.target)
    warnings = [f"What members are said to have (audit.direction): {measured.direction}."]
    has_shadow = measured.shadow is not None
    held_out = "the shadow model's scores" if has_shadow else "a separate half of the rows"
    if not has_shadow and measured.clid:
        measured, rows = _halved(measured, rows, options.seed)
    judged = {}
    if measured.clid:
        judged[CLID_TH] = _clid(measured, options, has_shadow)
    for place, name in enumerate(measured.names):
        judged[name] = _column(measured, place, options, has_shadow)
    headline = options.headline or next(iter(judged))
    if headline not in judged:
        raise ValueError(f"audit.headline is {headline!r}; the scores are {', '.join(judged)}.")
    head = judged[headline]
    if not measured.base:
        warnings.append(
            "No scores on a base model (audit.base_member_scores): whether a model that cannot "
            "know the members tells them apart as well was not checked."
        )
    if not has_shadow:
        warnings.append(
            "No scores of a shadow model (audit.shadow_member_scores): thresholds come from one "
            "half of the audited scores, and are judged on the other."
        )
    dataset, told = _dataset(measured, options)
    return AuditResult(
        verdict=verdict(headline, head.plain, head.base, [], held_out, pictures=False),
        headline=headline,
        tuned_on=held_out,
        judged=judged,
        blind=[],
        captions=[],
        ladder=None,
        dataset=dataset,
        members=[],
        holdouts=[],
        warnings=[*warnings, *told, *(f"{headline}: {note}" for note in head.plain.notes)],
        seconds={},
        rows={"row": rows},
        left_out=LEFT_OUT,
    )


def _column(measured: Measured, place: int, options: Options, has_shadow: bool) -> Judged:
    """One column, high for members."""

    def taken(features: Features) -> Features:
        return Features(*(each[:, [place]] * measured.signs[place] for each in features))

    target = taken(measured.target)
    shadow, base = (f and taken(f) for f in (measured.shadow, measured.base))
    plain = _evaluated(target, shadow, options, has_shadow)
    scores = target.scored(first_column)
    if not base:
        return Judged(None, first_column, scores, plain, None, None)
    gate = controls.gate(base.scored(first_column), scores, options.resamples, options.seed)
    # The shadow's own base is not given, so that thresholds of the difference are set on a half.
    calibrated = _evaluated(target.minus(base), None, options, False)
    return Judged(None, first_column, scores, plain, calibrated, gate)


def _clid(measured: Measured, options: Options, has_shadow: bool) -> Judged:
    """CLiD_th, whose scales and mixture are fitted on the shadow, or on the half in its place."""
    score, target, shadow = CLiDThreshold(), measured.target, measured.shadow
    assert shadow is not None
    rule = score.fit(*shadow)
    plain = _evaluate(score.fit, shadow, target, options, has_shadow)
    gate = None
    if measured.base:
        gate = controls.gate(
            measured.base.scored(rule), target.scored(rule), options.resamples, options.seed
        )
    return Judged(None, rule, target.scored(rule), plain, None, gate)


def _evaluated(
    target: Features, shadow: Features | None, options: Options, has_shadow: bool
) -> Evaluation:
    """Of scores (N, 1) that need no fitting."""
    if shadow:
        return _evaluate(_as_given, shadow, target, options, has_shadow)
    tuning, other = _halves(target, options.seed)
    held = _evaluate(_as_given, _taken(target, tuning), _taken(target, other), options, False)
    # Its thresholds are its own: not used.
    whole = _evaluate(_as_given, target, target, options, False)
    rates = [
        replace(
            each,
            threshold=half.threshold,
            realised_fpr=half.realised_fpr,
            realised_tpr=half.realised_tpr,
            p_missed=half.p_missed,
        )
        for each, half in zip(whole.rates, held.rates, strict=True)
    ]
    return replace(
        whole,
        asr=held.asr,
        tau=held.tau,
        realised_fpr=held.realised_fpr,
        realised_tpr=held.realised_tpr,
        rates=rates,
        notes=notes(rates, whole.n_holdouts, has_shadow=False),
    )


def _evaluate(
    fit: Fit, shadow: Features, target: Features, options: Options, has_shadow: bool
) -> Evaluation:
    return evaluate(
        fit,
        shadow,
        target,
        fprs=options.fprs,
        resamples=options.resamples,
        seed=options.seed,
        has_shadow=has_shadow,
    )


def _as_given(members: np.ndarray, holdouts: np.ndarray) -> Rule:
    return first_column


def _dataset(measured: Measured, options: Options) -> tuple[dict[str, DatasetTest], list[str]]:
    """The set as a whole by all columns together, and what to say of it."""
    if not options.dataset or len(measured.names) < 2:
        return {}, []
    if min(map(len, measured.target)) < LEAST:
        return {}, [f"The set was not tested as a whole, which takes {LEAST} rows of each kind."]
    rng, told = np.random.default_rng(options.seed), []
    some = [np.sort(rng.permutation(len(rows))[:MOST]) for rows in measured.target]
    if max(map(len, measured.target)) > MOST:
        told = [f"The test of the set as a whole took {MOST} rows of each kind, drawn at random."]

    def oriented(features: Features) -> tuple[np.ndarray, np.ndarray]:
        inside, outside = (
            rows[kept] * measured.signs for rows, kept in zip(features, some, strict=True)
        )
        return inside, outside

    test = dataset_test(
        *oriented(measured.target),
        base=oriented(measured.base) if measured.base else None,
        permutations=options.permutations,
        seed=options.seed,
    )
    return {f"{len(measured.names)} columns": test}, told


def _numbers(features: Features) -> Features:
    """Rows of the files, from 1, a header not counted."""
    return Features(*(np.arange(1, len(rows) + 1) for rows in features))


def _halves(features: Features, seed: int) -> tuple[Features, Features]:
    """Places to tune on and places to judge, drawn at random."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(rows)) for rows in features]
    first = Features(*(np.sort(order[: len(order) // 2]) for order in orders))
    return first, Features(*(np.sort(order[len(order) // 2 :]) for order in orders))


def _taken(features: Features, places: Features) -> Features:
    return Features(*(rows[some] for rows, some in zip(features, places, strict=True)))


def _halved(measured: Measured, rows: Features, seed: int) -> tuple[Measured, Features]:
    """One half in the place of the shadow, the other one to judge."""
    tuning, judged = _halves(measured.target, seed)
    halved = replace(
        measured,
        target=_taken(measured.target, judged),
        base=_taken(measured.base, judged) if measured.base else None,
        shadow=_taken(measured.target, tuning),
    )
    return halved, _taken(rows, judged)
