"""What an audit found."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_lightning.audit.blind import Blind
from shortcut_lightning.audit.controls import CaptionControl, Gate
from shortcut_lightning.audit.dataset_inference import DatasetTest
from shortcut_lightning.audit.evaluator import Evaluation, Features
from shortcut_lightning.audit.ladder import DecidedSet
from shortcut_lightning.audit.path_curve import PathCurve
from shortcut_lightning.audit.verdict import Verdict
from shortcut_lightning.files.atomic import atomic, write_text
from shortcut_lightning.membership.base import Rule, Score
from shortcut_lightning.membership.pictures import Picture


@dataclass(frozen=True)
class Judged:
    """One score: the rule as tuned, every image's score on the target, and what they are worth."""

    score: Score | None  # None where others measured it
    rule: Rule
    scores: Features  # (N,) members, (M,) hold-outs
    plain: Evaluation
    calibrated: Evaluation | None  # the same for target minus base
    base: Gate | None  # on a model that cannot know


@dataclass(frozen=True)
class Summary:
    """The result as plain data, for `report.json`."""

    verdict: dict[str, str]
    headline: str
    tuned_on: str
    scores: dict[str, dict[str, Any]]
    blind: list[dict[str, Any]]
    captions: list[dict[str, Any]]
    ladder: dict[str, Any] | None
    dataset: dict[str, Any]
    path: dict[str, Any] | None
    warnings: list[str]
    left_out: list[str]
    seconds: dict[str, float]


@dataclass(frozen=True)
class AuditResult:
    """Everything of an audit, for its files and its page."""

    verdict: Verdict
    headline: str
    tuned_on: str
    judged: dict[str, Judged]
    blind: list[Blind]
    captions: list[CaptionControl]
    ladder: DecidedSet | None
    dataset: dict[str, DatasetTest]
    members: Sequence[Picture]
    holdouts: Sequence[Picture]
    warnings: list[str]
    seconds: dict[str, float]
    path: PathCurve | None = None
    # Where the pictures are not at hand, what stands for them in `scores.csv`: columns of values.
    rows: dict[str, Features] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # parts of an audit that were not possible

    def summary(self) -> Summary:
        """As plain data; the curves and single images are left to other files."""
        return Summary(
            verdict=self.verdict._asdict(),
            headline=self.headline,
            tuned_on=self.tuned_on,
            scores={name: _score(each) for name, each in self.judged.items()},
            blind=[{**each._asdict(), "tells": each.tells} for each in self.blind],
            captions=[each._asdict() for each in self.captions],
            ladder=_ladder(self.ladder) if self.ladder else None,
            dataset={
                title: {**_fields(test), "sentence": test.sentence}
                for title, test in self.dataset.items()
            },
            path=_path(self.path) if self.path else None,
            warnings=self.warnings,
            left_out=self.left_out,
            seconds=self.seconds,
        )

    def write_json(self, path: Path, facts: dict[str, Any]) -> None:
        """The summary, and facts about the audit."""
        text = json.dumps(_plain({**asdict(self.summary()), **facts}), indent=1)
        write_text(path, text + "\n")

    def write_csv(self, path: Path) -> None:
        """One row per judged image: name, content key, set, caption, every score and the headline's
        flag. Of scores that others measured, the row of the file stands for the image; streamed
        ones have no captions here."""
        if self.rows:
            self._write_rows(path)
            return
        head = self.judged[self.headline]
        with atomic(path) as half, half.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            climbed = self.ladder.decided if self.ladder else []
            columns = ["ladder flagged", "ladder queries"] if climbed else []
            writer.writerow(["name", "key", "set", "caption", "flagged", *self.judged, *columns])
            for place, (name, pictures) in enumerate(
                (("member", self.members), ("non-member", self.holdouts))
            ):
                for row, picture in enumerate(pictures):
                    values = [each.scores[place][row] for each in self.judged.values()]
                    flagged = int(head.scores[place][row] > head.plain.tau)
                    said = climbed[place * len(self.members) + row] if climbed else None
                    writer.writerow(
                        [picture.name, f"{picture.key:016x}", name, picture.caption, flagged]
                        + [f"{value:.6g}" for value in values]
                        + ([int(said.member), said.queries] if said else [])
                    )

    def _write_rows(self, path: Path) -> None:
        head, judged = self.judged[self.headline], self.judged.values()
        with atomic(path) as half, half.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*self.rows, "set", "flagged", *self.judged])
            for place, name in enumerate(("member", "non-member")):
                flagged = (head.scores[place] > head.plain.tau).astype(int).tolist()
                columns = ([f"{v:.6g}" for v in each.scores[place].tolist()] for each in judged)
                own = (features[place].tolist() for features in self.rows.values())
                names = [name] * len(flagged)
                writer.writerows(zip(*own, names, flagged, *columns, strict=True))


def _path(curve: PathCurve) -> dict[str, Any]:
    return {
        "levels": [level._asdict() for level in curve.levels],
        "predicted_share": curve.predicted,
    }


def _score(judged: Judged) -> dict[str, Any]:
    return {
        "access": judged.score.access if judged.score else None,
        "queries": judged.score.queries if judged.score else None,
        "target": _fields(judged.plain),
        "target_minus_base": _fields(judged.calibrated) if judged.calibrated else None,
        "base": _named(judged.base) | {"passed": judged.base.passed} if judged.base else None,
    }


def _ladder(found: DecidedSet) -> dict[str, Any]:
    """Without the single decisions, which are in `scores.csv`."""
    return {
        "queries": found.queries,
        "per_rung": found.per_rung,
        "asr": found.asr,
        "realised_fpr": found.realised_fpr._asdict(),
        "realised_tpr": found.realised_tpr._asdict(),
    }


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as a dictionary, named tuples inside by their names."""
    return {key: _named(item) for key, item in asdict(value).items()}


def _named(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {key: _named(item) for key, item in value._asdict().items()}
    if isinstance(value, list):
        return [_named(item) for item in value]
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    return value


def _plain(value: object) -> object:
    """JSON has no NaN: it becomes null. Arrays become lists, other objects their fields."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
