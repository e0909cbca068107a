"""Score files that are text: columns between tabs, semicolons, commas or spaces; a header or none.

NumPy reads a million rows in a second and says little of a damaged one, so that a file it refuses
is gone through once more, row by row.
"""

import csv
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

Choice = Callable[[list[str], Sequence[str], Path], list[str]]


class _Form(NamedTuple):
    delimiter: str | None  # None for spaces, however many
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
    place, line, following = 0, "", ""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, each in enumerate(file, 1):
                if line and each.strip():
                    following = each.strip("\r\n")
                    break
                if each.strip():
                    place, line = number, each.strip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8.") from error
    line = line.removeprefix("# ")  # as numpy.savetxt begins a header
    delimiter = _delimiter(line, following)
    cells = [cell.strip() for cell in next(_rows([line], delimiter), [])]
    below = [cell.strip() for cell in next(_rows([following], delimiter), [])]
    header = bool(cells) and (all(map(_is_word, cells)) or _numbered_header(cells, below, path))
    names = [cell or f"column {n}" for n, cell in enumerate(cells, 1)]
    return _Form(delimiter, header, names if header else numbered(len(cells)), place + header)


def _delimiter(line: str, following: str) -> str | None:
    """Of a file that begins with these two lines."""
    if found := next((each for each in "\t;," if each in line), ""):
        return found
    # Spaces divide numbers; in a line of words alone they may belong to a name.
    words = (following or line).split()
    return None if len(words) > 1 and not any(map(_is_word, words)) else "\t"


def _rows(lines: Iterable[str], delimiter: str | None) -> Iterator[list[str]]:
    if delimiter is None:
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=delimiter)


def _numbered_header(cells: list[str], below: list[str], path: Path) -> bool:
    """Whether the first row is 0, 1, ..., which pandas calls columns without names, behind an empty
    cell where it writes its index. Raises ValueError where that may as well be a score."""
    named = cells[1:] if cells[0] == "" else cells
    plain = all(cell.lstrip("-").isdecimal() for cell in below[-len(named) :])
    if plain or named != [str(number) for number in range(len(named))]:
        return False
    if len(cells) == 1:
        raise ValueError(
            f"{path}: the first row is 0, a score or pandas' name for a column without one; write "
            "a name into the first row, or no header (to_csv(header=False))."
        )
    return True


def _explain(path: Path, form: _Form, places: Sequence[int], error: Exception) -> NoReturn:
    """Raises ValueError for the first row that is not as the others."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for place, cells in enumerate(_rows(file, form.delimiter), 1):
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


def _is_word(cell: str) -> bool:
    return _number(cell) is None
