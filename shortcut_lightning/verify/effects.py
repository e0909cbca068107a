"""How much less was learnt from protected photographs than from clean and from noisy ones.

Every arm is asked for the same pictures: the same prompts, the same noise. So arms are compared
picture by picture, with the statistics that `bench` has for subjects: a paired bootstrap interval,
Wilcoxon's test, Holm's correction for all comparisons of the page.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from shortcut_lightning.bench.matrix import Cell
from shortcut_lightning.bench.results import LEVEL, Difference, Values, holm, paired
from shortcut_lightning.callbacks.evaluation import BY_PICTURE
from shortcut_lightning.verify.photographs import NOISE, PROTECTED
from shortcut_lightning.verify.routes import AS_GIVEN, CLEAN, UNTOUCHED, Route

IDENTITY = "eval/identity"
# Measures of quality, the first that was taken; a name that ends in "_" is a beginning.
_QUALITY = ("eval/quality_pocket", "eval/q_paper", "eval/iqa_", "eval/clip_iqa_")
# Those of pyiqa's that are low for good pictures: a fall would be taken for harm.
_REVERSED = ("eval/iqa_brisque", "eval/iqa_niqe", "eval/iqa_ilniqe", "eval/iqa_pi")
_LEAST = {"eval/q_paper": -1.0, "eval/iqa_liqe": 1.0}  # of a scale that does not begin at 0
SLIGHT = 0.1  # of what was there to be lowered; less is shown, but not worth much

Grade = Literal["none", "slight", "clear"]


class Measured(NamedTuple):
    """What cells say: metric -> arm -> seed and picture -> value."""

    values: dict[str, dict[str, Values]]

    def mean(self, metric: str, arm: str) -> float:
        """Over pictures and seeds; NaN where nothing is."""
        found = list(self.values[metric].get(arm, {}).values())
        return sum(found) / len(found) if found else math.nan

    def measures(self) -> list[str]:
        """Identity and, where one was taken, a measure of quality."""
        quality = (m for known in _QUALITY for m in self.values if _is(m, known))
        first = next(quality, "")
        return [metric for metric in (IDENTITY, first) if metric in self.values]


@dataclass(frozen=True)
class Effect:
    """How much lower a measure is after protected photographs than after clean and noisy ones."""

    measure: str
    below_clean: Difference
    below_noise: Difference
    p_clean: float  # Holm's
    p_noise: float
    share: float  # of what clean photographs teach, above the untouched model
    grade: Grade
    needed: int = 0  # pictures without which no difference, however large, is shown

    @property
    def too_few(self) -> bool:
        """Whether nothing is shown, and no difference could have been."""
        return self.grade == "none" and min(self.below_clean.n, self.below_noise.n) < self.needed


@dataclass(frozen=True)
class Finding:
    """What a route leaves of the protection."""

    route: Route
    effects: Sequence[Effect]

    @property
    def grade(self) -> Grade:
        """That of the measure on which most is left."""
        order: tuple[Grade, ...] = ("clear", "slight", "none")
        return min((each.grade for each in self.effects), key=order.index)

    @property
    def too_few(self) -> bool:
        """Whether no effect could have been shown."""
        return all(each.too_few for each in self.effects)

    @property
    def fall(self) -> float:
        """The largest fall below clean and below noise, as a share of what clean teaches."""
        return max(each.share for each in self.effects)


def measured(reports: Sequence[tuple[Cell, Path]]) -> Measured:
    """Reads what finished cells have written of single pictures."""
    values: dict[str, dict[str, Values]] = {}
    for cell, report in reports:
        file = report.parent / BY_PICTURE
        if not file.is_file():
            continue
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                of_arm = values.setdefault(row["metric"], {}).setdefault(cell.arm, {})
                value = float(row["value"])
                if math.isfinite(value):
                    of_arm[f"{cell.seed}/{row['image']}"] = value
    return Measured(values)


def least_pictures(comparisons: int) -> int:
    """How many of each arm it takes for an effect to be shown among so many comparisons: where all
    n pictures differ in one direction, Wilcoxon's p is 2 / 2^n, and Holm multiplies it."""
    return math.ceil(1 + math.log2(comparisons / LEVEL))


def findings(found: Measured, routes: Sequence[Route]) -> list[Finding]:
    """The routes whose three arms were measured, the worst for the protection first."""
    pairs = [
        (route, measure, *_below(found, measure, route))
        for route in routes
        for measure in found.measures()
    ]
    pairs = [each for each in pairs if each[2].n and each[3].n]
    ps = holm([p for each in pairs for p in (each[2].p, each[3].p)])
    needed = least_pictures(len(ps)) if ps else 0
    effects: dict[str, list[Effect]] = {}
    for (route, measure, clean, noise), p_clean, p_noise in zip(
        pairs, ps[::2], ps[1::2], strict=True
    ):
        share = min(clean.mean, noise.mean) / _teachable(found, measure, route)
        lowered = clean.low > 0 and noise.low > 0 and max(p_clean, p_noise) <= LEVEL
        grade: Grade = "none" if not lowered else "slight" if share < SLIGHT else "clear"
        effect = Effect(measure, clean, noise, p_clean, p_noise, share, grade, needed)
        effects.setdefault(route.name, []).append(effect)
    made = [Finding(route, effects[route.name]) for route in routes if route.name in effects]
    order = {"none": 0, "slight": 1, "clear": 2}
    return sorted(made, key=lambda each: (order[each.grade], each.fall))


def _below(found: Measured, measure: str, route: Route) -> tuple[Difference, Difference]:
    by_arm = found.values[measure]
    protected = by_arm.get(f"{PROTECTED}/{route.name}", {})
    clean, noise = (
        paired(by_arm.get(f"{name}/{route.name}", {}), protected, name) for name in (CLEAN, NOISE)
    )
    return clean, noise


def _teachable(found: Measured, measure: str, route: Route) -> float:
    """What clean photographs teach: identity above the untouched model's, quality at all. To
    another model than the recipe's they teach something else; its own floor is not measured."""
    clean = found.mean(measure, f"{CLEAN}/{route.name if route.learner else AS_GIVEN}")
    floor = _LEAST.get(measure, 0.0)
    if measure == IDENTITY:
        floor = found.mean(measure, f"{UNTOUCHED}/{AS_GIVEN}")
    span = clean - (floor if math.isfinite(floor) else 0.0)
    return span if span > 1e-6 else 1.0


def _is(metric: str, known: str) -> bool:
    if not known.endswith("_"):
        return metric == known
    return metric.startswith(known) and not metric.startswith(_REVERSED)
