"""The detector's card: rows of what it finds and of what it calls protected by mistake.

Every attack is judged by a detector that was trained without it, and once more without all attacks
that resemble it; its pictures show people and photographs that no training saw. Thresholds are
those that each training chose for itself.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from shortcut_lightning.concepts.protection import RATES, ErrorRates, ProtectionNetwork
from shortcut_lightning.files import csv_rows
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.metrics.estimate import mean_estimate
from shortcut_lightning.screening import fit
from shortcut_lightning.screening.pictures import ATTACKS
from shortcut_lightning.screening.table import Row, Table, in_processes
from shortcut_lightning.screening.variants import INNOCENT

FOUND, ALARMS, CALIBRATION = "found.csv", "alarms.csv", "calibration.csv"
_WAYS = ("attack", "family of attacks")  # what is left out with it
_BINS = 10  # of the score


class Found(NamedTuple):
    """Protected pictures of one kind: how a detector that never saw their attack judges them."""

    left_out: str  # of `_WAYS`
    attack: str
    model: str  # the family attacked
    source: str
    side: int
    epsilon: int
    publication: str
    pictures: int
    auc: float  # against clean pictures published in the same way
    found_1: int  # above the threshold for 1 % false alarms
    found_2: int
    found_5: int
    found_10: int
    found_20: int


class Alarms(NamedTuple):
    """Unprotected pictures of one kind, judged by a detector trained on all attacks."""

    training: str  # "all", "without noise", or "without edits" where it saw neither
    kind: str
    source: str
    side: int
    epsilon: int  # of noise
    publication: str
    pictures: int
    alarms_1: int
    alarms_2: int
    alarms_5: int
    alarms_10: int
    alarms_20: int


class Bin(NamedTuple):
    """Pictures with scores in one tenth of [0, 1]; half of all weight is on protected ones."""

    least: float
    pictures: int
    score: float  # mean
    protected: float  # share


def write(
    network: ProtectionNetwork, table: Table, folder: Path, rates: Path, workers: int = 1
) -> None:
    """Measures; writes three files of rows into `folder`, and the error rates that travel with the
    weights into `rates`."""
    card_part = table.where([row.part == "card" for row in table.rows])
    ordinary = card_part.where([row.kind != "protected" for row in card_part.rows])
    found: list[Found] = []
    unseen: list[tuple[Row, float]] = []
    attacks = sorted({row.attack for row in table.rows if row.attack})
    ways = [(way, group) for way in _WAYS for group in _groups(way, attacks)]
    parts = [fit.left_out(table, group) for _, group in ways]
    judges = in_processes(fit.train, [part.training for part in parts], workers)
    for (way, _), part, judge in zip(ways, parts, judges, strict=True):
        scores = fit.score(judge, part.tested.statistics)
        found += _found(way, judge, part.tested.rows, scores, ordinary)
        if way == "attack":
            unseen += list(zip(part.tested.rows, scores.tolist(), strict=True))
    training = table.where([row.part == "training" for row in table.rows])
    fewer = {"without noise": ("random noise",), "without edits": tuple(INNOCENT)}
    trainings = [training.where([r.kind not in k for r in training.rows]) for k in fewer.values()]
    others = in_processes(fit.train, trainings, workers)
    judged = [("all", network), *zip(fewer, others, strict=True)]
    alarms = [row for name, one in judged for row in _alarms(name, one, ordinary)]
    bins = _calibration(network, ordinary, unseen)
    for name, kept in ((FOUND, found), (ALARMS, alarms), (CALIBRATION, bins)):
        csv_rows.write(folder / name, kept)
    with atomic(rates) as half:
        text = json.dumps(error_rates(found, alarms), indent=2)
        half.write_text(text + "\n", "utf-8")


def _groups(way: str, attacks: Sequence[str]) -> list[tuple[str, ...]]:
    """What is left out together."""
    if way == "attack":
        return [(attack,) for attack in attacks]
    found = (tuple(each for each in group if each in attacks) for group in fit.GROUPS.values())
    return [group for group in found if group]


def error_rates(found: Sequence[Found], alarms: Sequence[Alarms]) -> dict[str, dict[str, Any]]:
    """What travels with the weights, by rate of false alarms."""
    card: dict[str, dict[str, Any]] = {}
    shipped = [row for row in alarms if row.training == "all"]
    for rate in RATES:
        field = f"{rate * 100:.0f}"
        home = ("attack", "world", "pocket")  # what is left out, the source and the model
        world = [row for row in found if (row.left_out, row.source, row.model) == home]
        real = [r for r in found if (r.left_out, r.source) == ("attack", "photographs")]
        by_attack = {
            attack: _share([row for row in world if row.attack == attack], f"found_{field}")
            for attack in {row.attack for row in world}
        }
        least = min(by_attack, key=lambda attack: (by_attack[attack], attack))

        def share(kinds: Sequence[str], source: str, field: str = field) -> float:
            rows = [row for row in shipped if row.kind in kinds and row.source == source]
            return round(_share(rows, f"alarms_{field}"), 3)

        rates = ErrorRates(
            rate=rate,
            found=round(float(np.mean(list(by_attack.values()))), 3),
            least=round(by_attack[least], 3),
            least_attack=least,
            attacks=len(by_attack),
            found_photographs=round(_share(real, f"found_{field}"), 3) if real else None,
            alarms=share(("clean",), "world"),
            edited=share(tuple(INNOCENT), "world"),
            photographs=share(("clean",), "photographs"),
        )
        card[f"{rate:g}"] = rates._asdict()
    return card


def _found(
    way: str,
    judge: ProtectionNetwork,
    rows: Sequence[Row],
    scores: np.ndarray,
    ordinary: Table,
) -> Iterator[Found]:
    others = fit.score(judge, ordinary.statistics)
    groups: dict[Row, list[float]] = defaultdict(list)
    for row, one in zip(rows, scores.tolist(), strict=True):
        groups[row._replace(people="")].append(one)
    limits = judge.thresholds.tolist()
    for row, values in groups.items():
        beside = [
            each.kind == "clean"
            and each.source == row.source
            and each.publication == row.publication
            and (each.side == row.side or row.source != "world")
            for each in ordinary.rows
        ]
        clean = others[beside]
        above = [(clean < one).mean() + (clean == one).mean() / 2 for one in values]
        counts = [sum(one > limit for one in values) for limit in limits]
        yield Found(
            way,
            row.attack,
            row.family,
            row.source,
            row.side,
            row.epsilon,
            row.publication,
            len(values),
            round(float(np.mean(above)), 4),
            *counts,
        )


def _alarms(training: str, network: ProtectionNetwork, ordinary: Table) -> Iterator[Alarms]:
    groups: dict[Row, list[float]] = defaultdict(list)
    scores = fit.score(network, ordinary.statistics).tolist()
    for row, one in zip(ordinary.rows, scores, strict=True):
        groups[row._replace(people="")].append(one)
    limits = network.thresholds.tolist()
    for row, values in groups.items():
        counts = [sum(one > limit for one in values) for limit in limits]
        yield Alarms(
            training,
            row.kind,
            row.source,
            row.side,
            row.epsilon,
            row.publication,
            len(values),
            *counts,
        )


def _calibration(
    network: ProtectionNetwork, ordinary: Table, unseen: Sequence[tuple[Row, float]]
) -> list[Bin]:
    plain = ordinary.where([fit.is_ordinary(r) and r.source == "world" for r in ordinary.rows])
    negative = torch.from_numpy(fit.score(network, plain.statistics)).sigmoid().numpy()
    positive = torch.tensor([one for row, one in unseen if row.source == "world"]).sigmoid().numpy()
    bins = []
    for number in range(_BINS):
        inside = [
            side[np.minimum(side * _BINS, _BINS - 1).astype(int) == number]
            for side in (negative, positive)
        ]
        mass = [len(inside[0]) / len(negative), len(inside[1]) / len(positive)]
        if sum(mass):
            means = [part.mean() if len(part) else 0.0 for part in inside]
            mean = sum(w * m for w, m in zip(mass, means, strict=True)) / sum(mass)
            count = len(inside[0]) + len(inside[1])
            share = mass[1] / sum(mass)
            bins.append(Bin(number / _BINS, count, round(float(mean), 3), round(share, 3)))
    return bins


def _share(rows: Sequence[Any], field: str) -> float:
    pictures = sum(row.pictures for row in rows)
    return sum(getattr(row, field) for row in rows) / pictures if pictures else float("nan")


class Card:
    """The rows in a folder, summed for the page."""

    def __init__(self, folder: Path) -> None:
        self.found: list[Found] = csv_rows.read(folder / FOUND, Found)
        self.alarms: list[Alarms] = csv_rows.read(folder / ALARMS, Alarms)
        self.bins: list[Bin] = csv_rows.read(folder / CALIBRATION, Bin)

    @property
    def missing(self) -> list[str]:
        """Attacks of the recipe of which there are no rows yet."""
        return [name for name in ATTACKS if name not in {row.attack for row in self.found}]

    def by(self, *fields: str, **where: Any) -> list[Mapping[str, Any]]:
        """Protected pictures by the values of `fields`, of those rows where `where` holds: the mean
        over attacks of `auc`, `found_1` and `found_5`, the last with its interval over attacks, and
        how many attacks and pictures there are."""
        rows = [row for row in self.found if _holds(row, where)]
        keys = list(dict.fromkeys(tuple(getattr(row, field) for field in fields) for row in rows))
        return [
            dict(zip(fields, key, strict=True))
            | _over_attacks(
                [row for row in rows if tuple(getattr(row, field) for field in fields) == key]
            )
            for key in keys
        ]

    def mistakes(self, *fields: str, **where: Any) -> list[Mapping[str, Any]]:
        """Unprotected pictures in the same way: shares `alarms_1` and `alarms_5`."""
        rows = [row for row in self.alarms if _holds(row, where)]
        keys = list(dict.fromkeys(tuple(getattr(row, field) for field in fields) for row in rows))
        tables: list[Mapping[str, Any]] = []
        for key in keys:
            own = [row for row in rows if tuple(getattr(row, field) for field in fields) == key]
            tables.append(
                dict(zip(fields, key, strict=True))
                | {name: _share(own, name) for name in ("alarms_1", "alarms_5")}
                | {"pictures": sum(row.pictures for row in own)}
            )
        return tables


def _over_attacks(rows: Sequence[Found]) -> dict[str, Any]:
    attacks = sorted({row.attack for row in rows})
    of = {attack: [row for row in rows if row.attack == attack] for attack in attacks}
    found = mean_estimate(torch.tensor([_share(of[attack], "found_5") for attack in attacks]))
    weighted = [
        sum(row.auc * row.pictures for row in own) / sum(row.pictures for row in own)
        for own in of.values()
    ]
    return {
        "auc": float(np.mean(weighted)),
        "found_1": float(np.mean([_share(own, "found_1") for own in of.values()])),
        "found_5": found.value,
        "low": found.low,
        "high": found.high,
        "attacks": len(attacks),
        "pictures": sum(row.pictures for row in rows),
    }


def _holds(row: Any, where: Mapping[str, Any]) -> bool:
    return all(
        getattr(row, field) in (value if isinstance(value, list) else [value])
        for field, value in where.items()
    )
