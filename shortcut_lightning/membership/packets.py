"""Score files of others: tab-separated, one row per image, cond0, D_1, D_2, D_3, D_null.

So that published packets can be replayed through this evaluator, or ours through theirs.
"""

from pathlib import Path

import numpy as np

from shortcut_lightning.files.reading import read_text
from shortcut_lightning.membership.evaluator import Features


def read_scores(path: Path, drop_first_row: bool = False) -> np.ndarray:
    """(N, F) float64 rows of one file; a header of words is skipped.

    `drop_first_row` loses the first row of numbers too, as CLiD's code does.

    Raises ValueError for a missing file, rows of different length, and words or NaN among numbers.
    """
    if not path.is_file():
        raise ValueError(f"No score file at {path}; expected tab-separated rows, one per image.")
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    header = 1 if lines and _numbers(lines[0]) is None else 0
    rows: list[list[float]] = []
    for place, line in enumerate(lines[header:], start=header + 1):
        row = _numbers(line)
        if row is None or not np.isfinite(row).all():
            raise ValueError(f"{path}, row {place}: expected finite numbers, got {line[:60]!r}.")
        if rows and len(row) != len(rows[0]):
            raise ValueError(
                f"{path}, row {place}: {len(row)} columns, but {len(rows[0])} in the first row."
            )
        rows.append(row)
    rows = rows[1:] if drop_first_row else rows
    if not rows:
        raise ValueError(f"{path} has no rows of scores.")
    return np.array(rows)


def read_pair(members: Path, holdouts: Path, drop_first_row: bool = False) -> Features:
    """The files of one model. Raises ValueError as `read_scores`, or when their columns differ."""
    inside, outside = (read_scores(path, drop_first_row) for path in (members, holdouts))
    if inside.shape[1] != outside.shape[1]:
        raise ValueError(
            f"{members} has {inside.shape[1]} columns and {holdouts} {outside.shape[1]}; both must "
            "be from the same score."
        )
    return Features(inside, outside)


def write_scores(features: np.ndarray, path: Path) -> None:
    """Rows in the published form: tabs, no header, five significant digits."""
    lines = ["\t".join(f"{value:.5g}" for value in row) for row in features]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _numbers(line: str) -> list[float] | None:
    try:
        return [float(word) for word in line.split("\t")]
    except ValueError:
        return None
