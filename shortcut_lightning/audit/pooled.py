"""Several audits of the same pictures, joined: means over training seeds and paired differences.

An audit's own intervals are about the choice of images for one model. Here pictures are drawn anew
together in all audits, so that what two scores, or two models, have in common cancels in their
difference. Rules and thresholds stay as each audit tuned them.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from shortcut_lightning.files.reading import read_text
from shortcut_lightning.membership import roc
from shortcut_lightning.membership.roc import Interval
from shortcut_lightning.ranges import Between, Ranged, Seed

Statistic = Callable[[np.ndarray, np.ndarray, float], float]  # members, hold-outs, tau
SCORE_COLUMNS = 5  # what stands before the scores in a row of scores.csv


@dataclass(frozen=True)
class Audited:
    """One audit as its files tell it."""

    name: str
    report: dict[str, Any]
    keys: list[str]  # content of each picture
    member: np.ndarray  # (N,) bool
    scores: dict[str, np.ndarray]  # (N,) each


class Collection(Ranged):
    """Audits by name, and the pictures all of them drew from."""

    def __init__(
        self,
        audits: Sequence[Audited],
        resamples: Annotated[int, Between(100)] = 2000,
        seed: Seed = 0,
    ) -> None:
        self.audits = {each.name: each for each in audits}
        pictures = sorted({key for each in audits for key in each.keys})
        place = {key: number for number, key in enumerate(pictures)}
        rng = np.random.default_rng(seed)
        drawn = rng.integers(len(pictures), size=(resamples, len(pictures)))
        counts = np.stack([np.bincount(row, minlength=len(pictures)) for row in drawn])
        self._known: dict[tuple[Statistic, str, str], tuple[float, np.ndarray]] = {}
        self._counts = {each.name: counts[:, [place[key] for key in each.keys]] for each in audits}

    def seeds(self, setting: str) -> list[str]:
        """Names of the audits of a setting: `setting` itself, or with a dash and a number."""
        return sorted(
            name
            for name in self.audits
            if name == setting or (name.startswith(f"{setting}-") and name.split("-")[-1].isdigit())
        )

    def has(self, setting: str, score: str) -> bool:
        """Whether a score was taken in all audits of a setting."""
        names = self.seeds(setting)
        return bool(names) and all(score in self.audits[name].scores for name in names)

    def mean(self, statistic: Statistic, terms: Sequence[tuple[float, str, str]]) -> Interval:
        """Sum over terms (weight, setting, score) of the mean over that setting's seeds.

        The interval is a bootstrap over pictures. All terms must be there, see `has`.
        """
        point, samples = 0.0, np.zeros(0)
        for weight, setting, score in terms:
            names = self.seeds(setting)
            values, drawn = zip(*(self._one(statistic, n, score) for n in names), strict=True)
            point += weight * float(np.mean(values))
            part = weight * np.mean(drawn, axis=0)
            samples = samples + part if len(samples) else part
        low, high = np.nanquantile(samples, (0.025, 0.975))
        return Interval(point, float(low), float(high))

    def _one(self, statistic: Statistic, name: str, score: str) -> tuple[float, np.ndarray]:
        """The value and its resamples; tables and claims ask for the same ones."""
        key = statistic, name, score
        if key not in self._known:
            self._known[key] = self._drawn(statistic, name, score)
        return self._known[key]

    def _drawn(self, statistic: Statistic, name: str, score: str) -> tuple[float, np.ndarray]:
        each = self.audits[name]
        values, tau = each.scores[score], each.report["scores"][score]["target"]["tau"]
        inside, outside = np.flatnonzero(each.member), np.flatnonzero(~each.member)
        samples = []
        for counts in self._counts[name]:
            drawn = [np.repeat(values[part], counts[part]) for part in (inside, outside)]
            enough = min(map(len, drawn)) > 1
            samples.append(statistic(drawn[0], drawn[1], tau) if enough else np.nan)
        return statistic(values[inside], values[outside], tau), np.array(samples)


def read_audit(folder: Path) -> Audited:
    """From `report.json` and `scores.csv`. Raises ValueError where one is missing."""
    try:
        report = json.loads(read_text(folder / "report.json"))
        head, *rows = csv.reader(io.StringIO(read_text(folder / "scores.csv"), newline=""))
    except OSError as error:
        raise ValueError(f"{folder} is no finished audit: {error.strerror}.") from error
    names = [name for name in head[SCORE_COLUMNS:] if name in report["scores"]]
    return Audited(
        folder.name,
        report,
        [row[head.index("key")] for row in rows],
        np.array([row[head.index("set")] == "member" for row in rows]),
        {name: np.array([float(row[head.index(name)]) for row in rows]) for name in names},
    )


def area(members: np.ndarray, holdouts: np.ndarray, tau: float) -> float:
    """AUC."""
    return roc.auc(members, holdouts)


def success(members: np.ndarray, holdouts: np.ndarray, tau: float) -> float:
    """ASR at the shadow's threshold."""
    return roc.accuracy(members, holdouts, tau)


def caught(members: np.ndarray, holdouts: np.ndarray, tau: float) -> float:
    """TPR of members at 1 % FPR."""
    return roc.tpr_member(members, holdouts, 0.01)


def gap(members: np.ndarray, holdouts: np.ndarray, tau: float) -> float:
    """Members' mean minus hold-outs' mean."""
    return float(members.mean() - holdouts.mean())
