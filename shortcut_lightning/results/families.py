"""Does erasing hold a concept back more on one family than on another?

What an arm leaves is its share of pictures with the concept over that of the arm it is compared
with, on the same family: families learn a concept to unlike degrees. Intervals are made from
Wilson's of the four shares by the method of variance estimates recovery: of a ratio as Donner and
Zou have it (Statistical Methods in Medical Research 21, 2012), of a difference as Newcombe (method
10). They are over images, not over trainings, as all of the page's.
"""

import math
from collections.abc import Sequence

from shortcut_lightning.report.markdown import lines
from shortcut_lightning.results.erasing import (
    RUNS,
    Arm,
    ErasingTables,
    Spread,
    minus,
    shared,
    spread,
)

CODES = "qr"  # the concept that both families were asked; empty in rows of one concept
Step = tuple[str, str]  # an arm and what it is compared with


def held_more(first: ErasingTables, second: ErasingTables, steps: Sequence[Sequence[Step]]) -> str:
    """A row for each pair of steps, one of either family: what is left on both, and the answer to
    "the second leaves less". Steps that have no rows on one of them are left out.

    `holds` where the difference's interval is wholly below zero and every run agrees, `does not
    hold` where it is wholly above, else and with fewer than three runs `undecided`.
    """
    body = []
    for of_first, of_second in steps:
        ours, theirs = _arms(first, of_first), _arms(second, of_second)
        if ours and theirs:
            body.append([_said(of_first), _said(of_second), *_row(ours, theirs)])
    head = ["first", "second", "left on the first", "on the second", "second minus first", "less?"]
    return "\n".join(lines(head, body))


def _said(step: Step) -> str:
    return " over ".join(step)


def _arms(tables: ErasingTables, step: Step) -> tuple[Arm, Arm] | None:
    arms = tables.arms[CODES if CODES in tables.concepts else ""]
    if not all(name in arms for name in step):
        return None
    arm, against = (arms[name] for name in step)
    return (arm, against) if shared(arm, against) else None


def _row(first: tuple[Arm, Arm], second: tuple[Arm, Arm]) -> list[str]:
    ours, theirs = left(*second), left(*first)
    apart = minus(ours, theirs)
    return [spread(theirs), spread(ours), spread(apart), _answer(apart, first, second)]


def _answer(apart: Spread, first: tuple[Arm, Arm], second: tuple[Arm, Arm]) -> str:
    runs = min(len(shared(*first)), len(shared(*second)))
    if runs < RUNS:
        return "undecided"
    agree = max(_by_run(second)) < min(_by_run(first))
    if apart[2] < 0 and agree:
        return "holds"
    return "does not hold" if apart[1] > 0 else "undecided"


def _by_run(pair: tuple[Arm, Arm]) -> list[float]:
    arm, against = pair
    shares = [(arm.ratio([run])[0], against.ratio([run])[0]) for run in shared(arm, against)]
    return [a / b if b else math.inf for a, b in shares]


def left(arm: Arm, against: Arm) -> Spread:
    """Share of the one over that of the other, over the runs that both have; at least 0.

    Raises ValueError where the other never shows the concept.
    """
    runs = shared(arm, against)
    (a, a_low, a_high), (b, b_low, b_high) = arm.ratio(runs), against.ratio(runs)
    if b <= 0:
        raise ValueError("no share is left of an arm that never shows the concept.")
    return (a / b, _bound(a, a_low, b, b_high, -1), _bound(a, a_high, b, b_low, 1))


def _bound(a: float, a_end: float, b: float, b_end: float, sign: int) -> float:
    """Of a / b, from the end of each interval that takes the ratio there."""
    if b_end >= 2 * b:  # so little is known of b that the ratio may be anything below
        return 0.0
    under = (a * b) ** 2 - a_end * b_end * (2 * a - a_end) * (2 * b - b_end)
    found = (a * b + sign * math.sqrt(max(under, 0.0))) / (b_end * (2 * b - b_end))
    return max(found, 0.0)
