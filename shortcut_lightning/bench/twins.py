"""Cells of one matrix that another has measured: the same settings under another arm's name."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shortcut_lightning.bench.matrix import Cell, Matrix
from shortcut_lightning.bench.paths import pictures
from shortcut_lightning.bench.rows import Rows

_WHERE = ("output_dir", "name")  # of a run, which decide nothing of it


def taken(
    matrix: Matrix,
    folder: Path,
    other: Matrix,
    beside: Path,
    rows: Rows,
    merged: Callable[[list[str]], dict[str, Any]],
) -> Rows:
    """The other matrix's rows as this one's, where their cells come to the same settings.

    Args:
        matrix: Whose cells are to be known.
        folder: The folder of its file.
        other: The matrix that has rows.
        beside: The folder of its file.
        rows: Its rows; those of other settings than it has now are passed over.
        merged: The settings that a command line comes to.

    Raises ValueError where a command line cannot be read.
    """
    subjects = [s for s in matrix.subjects if s in other.subjects]
    same = {s for s in subjects if pictures(s, folder) == pictures(s, beside)}
    seeds = set(matrix.seeds) & set(other.seeds)
    found = Rows()
    if not same or not seeds or not rows.ran:
        return found
    place = min(same), min(seeds)
    known = {arm for arm, *_ in rows.ran}
    theirs = {
        _settings(other, cell, beside, place, merged): cell.arm
        for cell in _one_of_each(other)
        if cell.arm in known
    }
    names = {
        cell.arm: theirs.get(_settings(matrix, cell, folder, place, merged), "")
        for cell in _one_of_each(matrix)
    }
    measured = {cell.name: cell for cell in other.cells()}
    for cell in matrix.cells():
        name = (names[cell.arm], cell.subject, cell.seed)
        row, twin = rows.ran.get(name), measured.get(name)
        if row and twin and cell.subject in same and row.key == other.key(twin, beside):
            found.ran[cell.name] = row._replace(arm=cell.arm, key=matrix.key(cell, folder))
            found.values[cell.name] = [each._replace(arm=cell.arm) for each in rows.values[name]]
    return found


def _one_of_each(matrix: Matrix) -> Iterator[Cell]:
    """A cell of every arm."""
    yield from {cell.arm: cell for cell in matrix.cells()}.values()


def _settings(
    matrix: Matrix,
    cell: Cell,
    folder: Path,
    place: tuple[str, int],
    merged: Callable[[list[str]], dict[str, Any]],
) -> str:
    """What an arm comes to on a subject with a seed, whichever options say it."""
    subject, seed = place
    settings = merged(matrix.command(cell._replace(subject=subject, seed=seed), folder))
    return json.dumps({k: v for k, v in settings.items() if k not in _WHERE}, sort_keys=True)
