"""What cells measured, as rows that are kept in the repository after the runs are gone.

Two CSV files lie in a folder: `cells.csv` says what ran, `values.csv` what came out. Numbers are
written in full, so tables made from rows equal those made from the runs; the seconds of single
stages are missing in rows of before they were kept.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.reading import read_text

if TYPE_CHECKING:
    from shortcut_lightning.bench.runner import Runner

Name = tuple[str, str, int]  # arm, subject, seed


class Ran(NamedTuple):
    """A row of `cells.csv`."""

    arm: str
    subject: str
    seed: int
    key: str  # hash of the configuration and of the subject's pictures
    code: str  # hash of the code that decides numbers
    model: str  # name and fingerprint of the weights; the name alone where a run noted no more
    versions: str  # package version, of what numbers depend on
    seconds: float  # of training and evaluation
    created: str
    weights: str = ""  # hash of all built-in weights; empty in rows of before it was noted


class Value(NamedTuple):
    """A row of `values.csv`."""

    arm: str
    subject: str
    seed: int
    metric: str
    value: float
    n: int  # pictures it rests on; 0 of seconds


@dataclass
class Rows:
    """The rows of one matrix, by cell."""

    ran: dict[Name, Ran] = field(default_factory=dict)
    values: dict[Name, list[Value]] = field(default_factory=dict)

    def add(self, other: "Rows") -> None:
        """Takes over the other's cells; what was here of the same cells gives way."""
        self.ran |= other.ran
        self.values |= other.values

    def only(self, names: Iterable[Name]) -> "Rows":
        """The rows of these cells."""
        chosen = [name for name in names if name in self.ran]
        return Rows({n: self.ran[n] for n in chosen}, {n: self.values[n] for n in chosen})

    def take(
        self,
        name: Name,
        report: Path,
        key: str,
        code: str,
        seconds: float,
        weights: str = "",
    ) -> None:
        """Takes over a cell from its `report.json`; the other arguments are those of `Ran`."""
        found = json.loads(report.read_text("utf-8"))
        versions = " ".join(f"{k} {v}" for k, v in found["versions"].items())
        model, created = found.get("model", ""), found["created"]
        self.ran[name] = Ran(*name, key, code, model, versions, seconds, created, weights)
        self.values[name] = [
            Value(*name, metric, value, n) for metric, value, n in measured_in(found)
        ]

    def write(self, folder: Path) -> None:
        """Writes both files, sorted, each as a whole."""
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(self.ran)
        _write(folder / "cells.csv", Ran._fields, [self.ran[name] for name in names])
        values = [row for name in names for row in sorted(self.values[name])]
        _write(folder / "values.csv", Value._fields, values)

    @classmethod
    def read(cls, folder: Path) -> "Rows":
        """The rows of a folder; none where it has no files.

        Raises:
            ValueError: a file has other columns, or a row does not fit them.
        """
        rows = cls()
        for line in _read(folder / "cells.csv", Ran._fields, len(Ran._field_defaults)):
            arm, subject, seed, key, code, model, versions, seconds, *later = line
            row = Ran(arm, subject, int(seed), key, code, model, versions, float(seconds), *later)
            rows.ran[row[:3]] = row
            rows.values[row[:3]] = []
        for arm, subject, seed, metric, value, n in _read(folder / "values.csv", Value._fields):
            each = Value(arm, subject, int(seed), metric, float(value), int(n))
            if each[:3] not in rows.ran:
                raise ValueError(f"{folder / 'values.csv'}: {each[:3]} is not in cells.csv.")
            rows.values[each[:3]].append(each)
        return rows


def measured_in(report: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Metrics that a report has, with the pictures each rests on, and by `seconds/<stage>` what its
    stages took, which rest on none."""
    for metric, entry in report["metrics"].items():
        if entry["value"] is not None:
            yield metric, entry["value"], entry["n"]
    for stage, seconds in report["seconds"].items():
        yield f"seconds/{stage}", round(seconds, 1), 0


def gathered(runner: "Runner", code: str = "") -> Rows:
    """Rows of a matrix's finished cells, of their runs or as they were kept.

    Args:
        runner: Knows the matrix and where its cells are.
        code: Hash of the code that ran; empty takes what each run noted.
    """
    rows = runner.without_runs()
    for cell, path in runner.reports():
        rows.take(
            cell.name,
            path,
            runner.matrix.key(cell, runner.folder),
            code or runner.code(cell),
            runner.seconds(cell),
            runner.weights(cell),
        )
    return rows


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _read(path: Path, head: Sequence[str], later: int = 0) -> list[list[str]]:
    """The lines below a head, whose last columns older files may lack: these are then empty."""
    if not path.is_file():
        return []
    found = list(csv.reader(io.StringIO(read_text(path), newline="")))
    first, lines = next(iter(found), []), found[1:]
    if tuple(first) not in (tuple(head), tuple(head[: len(head) - later])):
        raise ValueError(f"{path} has the columns {', '.join(first)}; it needs {', '.join(head)}.")
    for number, line in enumerate(lines, 2):
        if len(line) != len(first):
            raise ValueError(
                f"{path}, line {number}: {len(line)} columns, {len(first)} are needed."
            )
    return [line + [""] * (len(head) - len(line)) for line in lines]
