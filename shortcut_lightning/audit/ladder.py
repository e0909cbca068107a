"""Few queries for clear cases, many for the others.

Every rung is a score with its own rule and bounds, all from the shadow model. An image whose score
lies outside the bounds is decided by the bound it crossed; the rest climbs on. The last rung
decides by its tau.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shortcut_lightning.audit.evaluator import Features
from shortcut_lightning.membership import roc
from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.clid import CLiDThreshold
from shortcut_lightning.membership.engine import Engine
from shortcut_lightning.membership.pictures import Picture
from shortcut_lightning.membership.reducers import NullOnly
from shortcut_lightning.membership.roc import Interval


@dataclass(frozen=True)
class Decided:
    """What the ladder says of one image."""

    picture: Picture
    member: bool
    rung: int  # 0 is the cheapest
    score: float  # on that rung, high = member
    queries: int  # spent on it in all


@dataclass(frozen=True)
class DecidedSet:
    """What the ladder came to over members and hold-outs of known membership."""

    decided: list[Decided]  # members first
    queries: float  # mean of all images
    per_rung: list[int]  # images decided on each rung
    asr: float  # mean accuracy of both sets
    realised_fpr: Interval  # Wilson
    realised_tpr: Interval


def decided_set(decided: Sequence[Decided], members: int) -> DecidedSet:
    """Counts decisions, the first `members` of which are about members."""
    flags = np.array([each.member for each in decided])
    rungs = np.bincount([each.rung for each in decided])
    caught, accused = int(flags[:members].sum()), int(flags[members:].sum())
    tpr = roc.wilson(caught, members)
    fpr = roc.wilson(accused, len(decided) - members)
    return DecidedSet(
        list(decided),
        float(np.mean([each.queries for each in decided])),
        [int(count) for count in rungs],
        (tpr.value + 1 - fpr.value) / 2,
        fpr,
        tpr,
    )


def default_rungs() -> list[Score]:
    """CLiD with 2, 6, 15 and 45 queries."""
    return [
        CLiDThreshold(NullOnly(), n_t=1),
        CLiDThreshold(NullOnly()),
        CLiDThreshold(),
        CLiDThreshold(draws=3),
    ]


def climb(
    engine: Engine,
    pictures: Sequence[Picture],
    shadow_members: Sequence[Picture],
    shadow_holdouts: Sequence[Picture],
    *,
    rungs: Sequence[Score] = (),
    error: float = 0.05,
    target: str = "target",
    shadow: str = "shadow",
) -> list[Decided]:
    """Decides every picture on the `target` model of the engine, in the order given.

    A rung leaves undecided what lies between its bounds: at most a share `error` of the shadow's
    members is below the lower and of its hold-outs above the upper one.

    Raises ValueError for an error share outside (0, 0.5].
    """
    if not 0 < error <= 0.5:
        raise ValueError(f"The ladder's error is {error}; it must be above 0 and at most 0.5.")
    chosen = list(rungs) or default_rungs()
    decided: dict[str, Decided] = {}
    waiting = list(pictures)
    for number, score in enumerate(chosen):
        name = f"rung {number}"
        engine.measure([*shadow_members, *shadow_holdouts], {name: score}, [shadow])
        known = engine.rows(name, shadow)
        tuning = Features(
            *(np.stack([known[p.row] for p in s]) for s in (shadow_members, shadow_holdouts))
        )
        rule = score.fit(*tuning)
        inside, outside = tuning.scored(rule)
        lower = -roc.threshold_at(-inside, error)
        upper = roc.threshold_at(outside, error)
        tau = roc.best_threshold(inside, outside)
        engine.measure(waiting, {name: score}, [target])
        rows = engine.rows(name, target)
        last = number == len(chosen) - 1
        spent = sum(each.queries for each in chosen[: number + 1])
        for picture in waiting:
            value = float(rule(rows[picture.row][None])[0])
            above, below = value > upper, value < lower
            if last or above or below:
                # tau may lie outside the bounds; it decides where not exactly one was crossed.
                member = above if above != below and not last else value > tau
                decided[picture.row] = Decided(picture, member, number, value, spent)
        waiting = [each for each in waiting if each.row not in decided]
        if not waiting:
            break
    return [decided[each.row] for each in pictures]
