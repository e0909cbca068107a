"""A matrix and its kept rows, as the template of a page asks for them."""

import csv
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import torch

from shortcut_lightning.bench.matrix import Matrix
from shortcut_lightning.bench.results import Measured, Table, tabulated
from shortcut_lightning.bench.rows import Rows
from shortcut_lightning.bench.tables import (
    CLAIM_HEAD,
    beside_earlier,
    cell,
    claim_rows,
    spread,
)
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.report.markdown import lines
from shortcut_lightning.results.figure import whiskers


class Suite:
    """What the rows of one matrix say.

    Args:
        recipe: The matrix's file; its claims are decided by the rows.
        folder: Folder of `cells.csv` and `values.csv`.
        also: Metrics that are asked for beside those that the matrix shows.

    Raises:
        ValueError: the folder has no rows, or they name an arm that the matrix has not.
    """

    def __init__(self, recipe: Path, folder: Path, also: Sequence[str] = ()) -> None:
        self.matrix, self.also = Matrix.read(recipe), also
        self.folder, self.rows = folder, Rows.read(folder)
        if not self.rows.ran:
            raise ValueError(f"{folder} has no rows; 'bench --rows {folder}' adds them.")
        known = {"/".join(levels) for levels in self.matrix.arms()}
        if unknown := sorted({arm for arm, *_ in self.rows.ran} - known):
            raise ValueError(f"{folder / 'cells.csv'}: {recipe.name} has no arm '{unknown[0]}'.")

    @cached_property
    def table(self) -> Table:
        """All rows by metric, arm and subject."""
        rows = (row for values in self.rows.values.values() for row in values)
        measured = (Measured(row.arm, row.subject, row.metric, row.value) for row in rows)
        table = tabulated(self.matrix, measured, self.also)
        table.finished = self.cells
        return table

    @property
    def cells(self) -> int:
        """How many cells there are rows of."""
        return len(self.rows.ran)

    @property
    def planned(self) -> int:
        """How many cells the matrix has."""
        return len(self.matrix.cells())

    @property
    def hours(self) -> str:
        """What they took together."""
        return f"{sum(row.seconds for row in self.rows.ran.values()) / 3600:.1f}"

    @property
    def states(self) -> int:
        """By how many states of the deciding code they were made."""
        return len({row.code for row in self.rows.ran.values()})

    @property
    def models(self) -> str:
        """The weights they began with."""
        return ", ".join(sorted({row.model for row in self.rows.ran.values() if row.model}))

    def people(self, arm: str) -> int:
        """On how many subjects an arm was run."""
        return len({subject for name, subject, _ in self.rows.ran if name == arm})

    def claims(self) -> str:
        """A table of the claims and what the rows say of each."""
        return "\n".join(lines(CLAIM_HEAD, claim_rows(self.matrix, self.table)))

    def verdicts(self) -> dict[str, int]:
        """Verdict -> how many claims have it."""
        said = [row[-1] for row in claim_rows(self.matrix, self.table)]
        return {verdict: said.count(verdict) for verdict in ("holds", "does not hold", "undecided")}

    def arms(self, metrics: Sequence[str], patterns: Sequence[str] = ("*",)) -> str:
        """A table with an arm in each row, those that fit a pattern, by the order of patterns."""
        body = [
            [arm, *(cell(self.table.estimate(metric, arm)) for metric in metrics)]
            for arm in self._fitting(patterns)
        ]
        return "\n".join(lines([" / ".join(self.matrix.factors), *map(_short, metrics)], body))

    def crossed(
        self, metric: str, rows: Sequence[str], columns: Mapping[str, str], people: int
    ) -> str:
        """A table of means over the first so many subjects: a row for each level of the first
        factor that fits a pattern, a column for each title, with what its arms end in; `–` where
        not all of the subjects were run, and no row where none was."""
        subjects, body = self.matrix.subjects[:people], []
        run = dict.fromkeys(arm.partition("/")[0] for arm in self._fitting(["*"]))
        levels = dict.fromkeys(
            each for pattern in rows for each in run if fnmatchcase(each, pattern)
        )
        for level in levels:
            found = [self._estimate(metric, f"{level}/{end}", subjects) for end in columns.values()]
            if any(each.n == people for each in found):
                body.append([level, *(cell(e) if e.n == people else "–" for e in found)])
        return "\n".join(lines(["", *columns], body))

    def mean(self, metric: str, arm: str, subjects: Sequence[str] = ()) -> str:
        """Mean over subjects with its interval and their number."""
        return cell(self._estimate(metric, arm, subjects))

    def share(self, metric: str, ceiling: str, arm: str) -> str:
        """What part of its ceiling a metric reaches: mean over subjects of the two's ratio."""
        tops = self.table.values.get(ceiling, {}).get(arm, {})
        values = self.table.values.get(metric, {}).get(arm, {})
        parts = [value / tops[subject] for subject, value in values.items() if subject in tops]
        return cell(mean_estimate(torch.tensor(parts)))

    def part(self, metric: str, arm: str, whole: str, against: str) -> str:
        """What part of the fall of one arm another shows, both against a third: mean over subjects
        of the two falls' ratio."""
        falls = self.table.values.get(metric, {})
        ours, all_of_it, level = (falls.get(name, {}) for name in (arm, whole, against))
        both = [subject for subject in ours if subject in all_of_it and subject in level]
        parts = [(level[s] - ours[s]) / (level[s] - all_of_it[s]) for s in both]
        return cell(mean_estimate(torch.tensor(parts)))

    def difference(self, metric: str, arm: str, against: str) -> str:
        """Paired difference of two arms with its interval."""
        return spread(self.table.difference(metric, arm, against))

    def again(self, metrics: Sequence[str], people: int) -> str:
        """Numbers of `earlier.csv` (arm, metric, value with its digits, people) beside what the
        first so many people of the rows say: how many are the same, and a table of the others. Arms
        that fewer were run on are left out."""
        text = (self.folder / "earlier.csv").read_text("utf-8")
        measured = []
        for row in csv.DictReader(text.splitlines()):
            values = self.table.values.get(row["metric"], {}).get(row["arm"], {})
            found = [values[s] for s in self.matrix.subjects[:people] if s in values]
            if row["metric"] in metrics and len(found) == people == int(row["people"]):
                of = row["arm"], _short(row["metric"])
                measured.append((of, row["value"], sum(found) / people))
        return beside_earlier(["arm", "metric"], measured)

    def figure(self, metric: str, patterns: Sequence[str]) -> str:
        """A drawing of means and intervals (SVG)."""
        return whiskers(
            _short(metric),
            [(arm, self.table.estimate(metric, arm)) for arm in self._fitting(patterns)],
        )

    def _estimate(self, metric: str, arm: str, subjects: Sequence[str]) -> Estimate:
        values = self.table.values.get(metric, {}).get(arm, {})
        kept = [value for subject, value in values.items() if not subjects or subject in subjects]
        return mean_estimate(torch.tensor(kept))

    def _fitting(self, patterns: Sequence[str]) -> list[str]:
        measured = {arm for arm, *_ in self.rows.ran}
        order = [arm for arm in self.table.arms if arm in measured]
        fitting = [arm for pattern in patterns for arm in order if fnmatchcase(arm, pattern)]
        return list(dict.fromkeys(fitting))


def _short(metric: str) -> str:
    return metric.rpartition("/")[2].removesuffix("_pocket")
