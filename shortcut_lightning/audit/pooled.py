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
from typing import Annotated, Any, NamedTuple

import numpy as np

from shortcut_lightning.files.reading import read_text
from shortcut_lightning.membership.roc import Interval
from shortcut_lightning.ranges import Between, Ranged, Seed

SCORE_COLUMNS = 5  # what stands before the scores in a row of scores.csv


class Drawn(NamedTuple):
    """The scores of a set, and how often each was drawn in each of R draws."""

    values: np.ndarray  # (N,)
    counts: np.ndarray  # (R, N)

    @property
    def total(self) -> np.ndarray:
        """(R,) scores of a draw."""
        return self.counts.sum(1)

    def mean(self, of: np.ndarray) -> np.ndarray:
        """(R,) means of what each score, (N,) or in each draw (R, N), stands for."""
        return (self.counts * of).sum(1) / self.total


Term = tuple[float, str, str]  # weight, setting, score
Statistic = Callable[[Drawn, Drawn, float], np.ndarray]  # members, hold-outs, tau -> (R,)


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

    def mean(self, statistic: Statistic, terms: Sequence[Term]) -> Interval:
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

        def drawn(counts: np.ndarray) -> tuple[Drawn, Drawn]:
            members, holdouts = (
                Drawn(values[part], counts[:, part]) for part in (each.member, ~each.member)
            )
            return members, holdouts

        (value,) = statistic(*drawn(np.ones((1, len(values)), np.int64)), tau)
        members, holdouts = drawn(self._counts[name])
        enough = (members.total > 1) & (holdouts.total > 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            samples = statistic(members, holdouts, tau)
        return float(value), np.where(enough, samples, np.nan)


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


def area(members: Drawn, holdouts: Drawn, tau: float) -> np.ndarray:
    """AUC, as `roc.auc`."""
    order = np.argsort(holdouts.values)
    before = np.pad(holdouts.counts[:, order].cumsum(1), ((0, 0), (1, 0)))
    ordered = holdouts.values[order]
    below, not_above = (
        before[:, np.searchsorted(ordered, members.values, side)] for side in ("left", "right")
    )
    won = (members.counts * (below + not_above)).sum(1)
    return won / (2 * members.total * holdouts.total)


def success(members: Drawn, holdouts: Drawn, tau: float) -> np.ndarray:
    """ASR at the shadow's threshold, as `roc.accuracy`."""
    return (members.mean(members.values > tau) + holdouts.mean(holdouts.values <= tau)) / 2


def caught(members: Drawn, holdouts: Drawn, tau: float) -> np.ndarray:
    """TPR of members at 1 % FPR, as `roc.tpr_member`."""
    order = np.argsort(-holdouts.values)
    allowed = np.floor(0.01 * holdouts.total + 1e-9)
    # The highest hold-out that is one too many is the threshold.
    first = (holdouts.counts[:, order].cumsum(1) > allowed[:, None]).argmax(1)
    threshold = holdouts.values[order][first]
    return members.mean(members.values > threshold[:, None])


def gap(members: Drawn, holdouts: Drawn, tau: float) -> np.ndarray:
    """Members' mean minus hold-outs' mean."""
    return members.mean(members.values) - holdouts.mean(holdouts.values)
