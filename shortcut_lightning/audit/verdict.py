"""The audit in plain words, and never more than the numbers allow."""

from collections.abc import Sequence
from typing import NamedTuple

from shortcut_lightning.audit.blind import Blind
from shortcut_lightning.audit.controls import Gate
from shortcut_lightning.audit.evaluator import Evaluation, Rate
from shortcut_lightning.membership.roc import Interval, null_error

# One-sided, beside the bootstrap's interval, which is too narrow for a handful of images.
SIGNIFICANT = 0.025


class Verdict(NamedTuple):
    """`kind` is "void", "told apart", "told apart, unchecked", "told apart on the base as well",
    "reversed" or "nothing found"."""

    kind: str
    text: str


def verdict(
    name: str,
    found: Evaluation,
    base: Gate | None,
    blind: Sequence[Blind],
    tuned_on: str,
    pictures: bool = True,
) -> Verdict:
    """From the headline score `name`, its control on the base model, and the blind baselines.

    Without a base, or without blind baselines, no difference is told without that reserve.
    `tuned_on` says where thresholds come from, for example "the shadow model". Without `pictures`,
    scores alone were given.
    """
    reasons = []
    if base and not base.passed:
        reasons.append(
            f"a model that never saw the members tells them apart as well (AUC {base.auc:.3f}, "
            f"where chance alone stays within {0.5 - 3 * base.error:.3f} and "
            f"{0.5 + 3 * base.error:.3f})"
        )
    reasons += [
        f"{each.name} alone, without any model, tell them apart (AUC {each.auc:.3f})"
        for each in blind
        if each.tells
    ]
    if reasons:
        return Verdict(
            "void",
            f"This audit is void: {'; and '.join(reasons)}. The two sets differ by more than "
            "membership, so no difference can be put down to training. Draw members and "
            "non-members at random from one collection.",
        )
    if found.auc.low > 0.5 and found.p_value < SIGNIFICANT:
        if base and base.gain.low <= 0:
            return _base_alike(name, found, base, blind, pictures)
        return _told_apart(name, found, base, blind, tuned_on, pictures)
    if found.auc.high < 0.5 and found.p_reversed < SIGNIFICANT:
        return Verdict(
            "reversed",
            f"{name} takes the non-members for members (AUC {_interval(found.auc)}): the model "
            "treats the sets differently, in the direction opposite to what the score assumes. "
            f"{_REVERSED[pictures]}; the assumption of the score may also not hold for this model.",
        )
    smallest = 0.5 + 2.8 * null_error(found.n_members, found.n_holdouts)
    power = f"With so many images it would mostly have found an AUC of {smallest:.2f} or more. "
    return Verdict(
        "nothing found",
        f"{name} finds no difference beyond chance between the {found.n_members} given members and "
        f"the {found.n_holdouts} non-members (AUC {_interval(found.auc)}; one-sided p = "
        f"{found.p_value:.2g}). {power if smallest <= 1 else ''}This does not show that the images "
        "were not used: a weaker trace, or another attack, is not excluded.",
    )


_REVERSED = {
    True: "Check that the sets were not exchanged and that the shadow model was trained as the "
    "target was",
    False: "Check that the files were not exchanged (audit.member_scores) and that the direction "
    "is the score's own (audit.direction)",
}
_BASE = {True: "audit.base", False: "audit.base_member_scores"}


def _base_alike(
    name: str, found: Evaluation, base: Gate, blind: Sequence[Blind], pictures: bool
) -> Verdict:
    return Verdict(
        "told apart on the base as well",
        f"{name} tells the {found.n_members} given members from the {found.n_holdouts} "
        f"non-members (AUC {_interval(found.auc)}), but not surely better than on a model that "
        f"never saw the members: there its AUC is {base.auc:.3f}, and the difference of the two is "
        f"{_interval(base.gain)}. What is found may lie in the pictures; membership cannot be "
        f"concluded.{_not_run(blind, pictures)}",
    )


def _told_apart(
    name: str,
    found: Evaluation,
    base: Gate | None,
    blind: Sequence[Blind],
    tuned_on: str,
    pictures: bool,
) -> Verdict:
    rate = _best_supported(found.rates)
    if rate:
        accused, caught = rate.realised_fpr, rate.realised_tpr
        where = f"set on {tuned_on} for {rate.fpr:.1%} false accusations"
    else:
        accused, caught, where = found.realised_fpr, found.realised_tpr, f"set on {tuned_on}"
    text = (
        f"The model treats the {found.n_members} given members differently from the "
        f"{found.n_holdouts} non-members: {name} has AUC {_interval(found.auc)}, one-sided "
        f"p = {found.p_value:.2g}. A threshold "
        f"{where} flags {_percent(caught)} of the members and {_percent(accused)} of the "
        "non-members. "
    )
    if accused.high <= 0.05 and caught.low > 2 * accused.high:
        text += (
            "A flag on a single image drawn like these is evidence with that rate of error; an "
            "image without a flag is not cleared."
        )
    else:
        text += "This is a statement about the set; it does not settle the case of any single one."
    if base is None:
        text += (
            f" No model that cannot know the members was given ({_BASE[pictures]}), so a "
            "difference between the sets that has nothing to do with training is not excluded."
        )
    text += _not_run(blind, pictures)
    return Verdict("told apart" if base and blind else "told apart, unchecked", text)


def _not_run(blind: Sequence[Blind], pictures: bool) -> str:
    if blind:
        return ""
    if not pictures:
        return (
            " Scores alone were given, so a difference that captions, pictures or files show by "
            "themselves is not excluded."
        )
    return (
        " The baselines without a model were not run (audit.controls.blind, or too few images), "
        "so a difference that captions, pictures or files show by themselves is not excluded."
    )


def _best_supported(rates: Sequence[Rate]) -> Rate | None:
    """The strictest share with enough hold-outs behind it, else the loosest with a few."""
    enough = [each for each in rates if each.support == "enough"]
    few = [each for each in rates if each.support == "few"]
    if enough:
        return min(enough, key=lambda each: each.fpr)
    return max(few, key=lambda each: each.fpr) if few else None


def _interval(value: Interval) -> str:
    return f"{value.value:.3f}, 95 % interval {value.low:.3f} to {value.high:.3f}"


def _percent(value: Interval) -> str:
    return f"{value.value:.1%} ({value.low:.1%} to {value.high:.1%})"
