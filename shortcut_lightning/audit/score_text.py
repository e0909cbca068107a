"""Score files that are text: columns between tabs, semicolons or commas, with or without a header.

NumPy reads a million rows in a second and says little of a damaged one, so that a file it refuses
is gone through once more, row by row.
"""

import csv
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

Choice = Callable[[list[str], Sequence[str], Path], list[str]]


class _Form(NamedTuple):
    delimiter: str
    header: bool
    names: list[str]
    first: int  # number of the line that the first row of numbers stands in


def read(path: Path, wanted: Sequence[str], choose: Choice) -> tuple[list[str], np.ndarray, bool]:
    """Names, (N, F) rows and whether the file gave the names; `choose` picks the columns.

    Raises ValueError for rows that are no numbers, or of different length.
    """
    form = _form(path)
    names = choose(form.names, wanted, path)
    places = [form.names.index(name) for name in names]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file, which is told later
            rows = np.loadtxt(
                path,
                delimiter=form.delimiter,
                skiprows=max(0, form.first - 1),
                usecols=places if wanted else None,
                ndmin=2,
                comments=None,
                quotechar='"',
                encoding="utf-8-sig",
            )
    except (ValueError, UnicodeDecodeError) as error:
        _explain(path, form, places, error)
    if not rows.size:
        rows = np.empty((0, len(names)))
    return names, rows, form.header


def numbered(columns: int) -> list[str]:
    """Names of columns that have none."""
    return [f"column {place}" for place in range(1, columns + 1)] if columns > 1 else ["score"]


def first_row(path: Path) -> int:
    """The number of the line that the first row of numbers stands in."""
    return _form(path).first


def _form(path: Path) -> _Form:
    place, line = 0, ""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for place, each in enumerate(file, 1):  # noqa: B007
                line = each.strip("\r\n")
                if line.strip():
                    break
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8.") from error
    delimiter = next((each for each in "\t;" if each in line), "," if "," in line else "\t")
    cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    header = bool(cells) and all(_number(cell) is None for cell in cells)
    names = [cell or f"column {n}" for n, cell in enumerate(cells, 1)]
    return _Form(delimiter, header, names if header else numbered(len(cells)), place + header)


def _explain(path: Path, form: _Form, places: Sequence[int], error: Exception) -> NoReturn:
    """Raises ValueError for the first row that is not as the others."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for place, cells in enumerate(csv.reader(file, delimiter=form.delimiter), 1):
                if place >= form.first and any(cell.strip() for cell in cells):
                    _check(path, place, cells, form, places)
    except (UnicodeDecodeError, csv.Error) as unread:
        raise ValueError(f"{path} is no text in UTF-8.") from unread
    raise ValueError(f"{path} cannot be read as numbers ({error}).") from error


def _check(path: Path, row: int, cells: list[str], form: _Form, places: Sequence[int]) -> None:
    if len(cells) != len(form.names):
        raise ValueError(
            f"{path}, row {row}: {len(cells)} columns, but {len(form.names)} in the first row."
        )
    for place in places:
        if _number(cells[place]) is None:
            raise ValueError(
                f"{path}, row {row}: expected finite numbers, got {cells[place][:60]!r} in "
                f"{form.names[place]!r}."
            )


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
