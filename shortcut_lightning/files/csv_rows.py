"""Rows in a CSV file: a named tuple each."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shortcut_lightning.files.atomic import atomic


def write(path: Path, rows: Sequence[Any]) -> None:
    """One file; its head are the fields of the rows, of which there is at least one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0]._fields)
        writer.writerows(rows)


def read(path: Path, kind: Any) -> list[Any]:
    """What `write` wrote, as named tuples of that kind."""
    kinds = kind.__annotations__
    with path.open(newline="", encoding="utf-8") as file:
        return [
            kind(**{name: kinds[name](value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]
