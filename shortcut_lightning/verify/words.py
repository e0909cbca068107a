"""The verdict, and what limits it, in sentences for who does not program."""

import math
from collections.abc import Mapping, Sequence

from shortcut_lightning.bench.results import Difference
from shortcut_lightning.files import folders
from shortcut_lightning.pocket import BUILT_IN
from shortcut_lightning.verify.effects import IDENTITY, Effect, Finding, Grade, Measured
from shortcut_lightning.verify.recipe import Recipe
from shortcut_lightning.verify.routes import AS_GIVEN, CLEAN, UNTOUCHED, Matrix

GRADES: Mapping[Grade, str] = {
    "none": "no effect shown",
    "slight": "a slight effect",
    "clear": "an effect is shown",
}
_TITLES: Mapping[Grade, str] = {
    "none": "In the worst case the protection has no effect that could be shown",
    "slight": "In the worst case little is left of the protection",
    "clear": "The protection has an effect in every case that was tried",
}
_TOO_FEW = "too few pictures to show any effect"
_HARDLY = 0.1  # identity above the untouched model's, from clean photographs


def name(measure: str) -> str:
    """A measure in a sentence."""
    return "identity" if measure == IDENTITY else "quality"


def title(found: Sequence[Finding]) -> str:
    """The page's heading; `found` is worst first, and may be empty."""
    if not found:
        return "Nothing was compared yet"
    if found[0].too_few:
        return "There are too few pictures to show any effect"
    return _TITLES[found[0].grade]


def verdict(found: Sequence[Finding], judges: Sequence[str]) -> list[str]:
    """The sentence of the worst case, and that of photographs as they are given, where it is
    another. `judges` are the networks behind the measures."""
    if not found:
        return ["The three trainings of no case are finished, so there is no verdict yet."]
    by = f"Judged by {' and '.join(judges)}."
    plain = [each for each in found[1:] if each.route.name == AS_GIVEN]
    others = [f"As they are given: {_sentence(each, '')}" for each in plain]
    return [f"Worst case: {_sentence(found[0], found[0].route.after)} {by}", *others]


def _sentence(finding: Finding, after: str) -> str:
    falls = " and ".join(f"{name(e.measure)} {by(e.below_clean)}" for e in finding.effects)
    said = f"{after} your protection lowers {falls}".strip()
    return f"{said}: {_grade(finding)}."


def _grade(finding: Finding) -> str:
    below_clean = any(e.below_clean.low > 0 for e in finding.effects)
    if finding.grade == "none" and below_clean and not finding.too_few:
        return "no effect shown beyond that of noise of the same size, or of chance"
    return graded(finding)


def graded(finding: Finding) -> str:
    """A finding in some words."""
    return _TOO_FEW if finding.too_few else GRADES[finding.grade]


def by(difference: Difference) -> str:
    """`by 0.02 (−0.03 to 0.07)`."""
    return f"by {number(difference.mean)} ({spread(difference)})"


def spread(difference: Difference) -> str:
    """An interval."""
    return f"{number(difference.low)} to {number(difference.high)}"


def number(value: float) -> str:
    """Two digits behind the point, a true minus, a dash for what is not there."""
    if not math.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def shares(effect: Effect) -> str:
    """How much of what clean photographs teach is missing."""
    return f"{max(0.0, effect.share):.0%} of what clean photographs teach"


def limits(recipe: Recipe, matrix: Matrix, found: Measured, models: Sequence[str]) -> list[str]:
    """What a reader must know before the verdict is repeated elsewhere."""
    said = []
    drawn = folders.is_pocket(recipe.source)
    if recipe.model in BUILT_IN and not drawn:
        said.append(
            "This is a rehearsal: the photographs are not of the drawn people that the built-in "
            "model and the networks that judge it know. Its numbers compare with each other; they "
            "say nothing about these photographs and a real model."
        )
    elif recipe.model in BUILT_IN:
        said.append(
            "This is a rehearsal on the built-in model and its drawn people: it shows how a "
            "protection behaves, not what it does to a model that people use."
        )
    said.append(
        f"The protection was made against {recipe.model} and tried on {' and '.join(models)}. It "
        "says nothing about any other model, about other purifiers, or about somebody who looks "
        "for a weakness of this very protection."
    )
    if matrix.left_out:
        said.append(f"Not tried: {'; '.join(matrix.left_out)}.")
    trainings = "One model was" if matrix.seeds == 1 else f"{matrix.seeds} models were"
    said.append(
        f"{trainings} trained for each case. Intervals are over the pictures that were made, which "
        "are paired: the same prompts and the same noise. Another training would differ by more."
    )
    if not (drawn or recipe.reference):
        said.append(
            "There were no held-out photographs (data.reference_data_dir): pictures are compared "
            "with the clean photographs that were learnt from."
        )
    side = recipe.data["resolution"] or "the model's own"
    said.append(
        f"What is done to the photographs is done at the size that is learnt ({side} pixels), "
        "where it destroys more than at a camera's."
    )
    return [*_unlearnt(found), *said]


def _unlearnt(found: Measured) -> list[str]:
    if IDENTITY not in found.values:
        return []
    clean = found.mean(IDENTITY, f"{CLEAN}/{AS_GIVEN}")
    floor = found.mean(IDENTITY, f"{UNTOUCHED}/{AS_GIVEN}")
    if not clean - floor < _HARDLY:
        return []
    return [
        f"Clean photographs were hardly learnt: identity {number(clean)}, of the untouched model "
        f"{number(floor)}. There was little to protect; train longer, or give better prompts."
    ]
