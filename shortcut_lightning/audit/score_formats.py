"""Files of scores that others measured: text with tabs or commas, Parquet, `.npy`, safetensors.

One row per image, one column per number. CLiD's published files are text with tabs and no header:
cond0, D_1, D_2, D_3, D_null. Nothing that a file could make a program run is ever read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shortcut_lightning.audit import score_text
from shortcut_lightning.audit.evaluator import Features
from shortcut_lightning.files.atomic import write_text
from shortcut_lightning.files.reading import refuse_pipe


class Columns(NamedTuple):
    """Named columns, (N, F) float64 and finite; `named` is False where the file gives no names."""

    names: list[str]
    rows: np.ndarray
    named: bool


def read_columns(path: Path, wanted: Sequence[str] = ()) -> Columns:
    """The columns of one file, or those that are `wanted`.

    Raises ValueError for a missing file, one of another kind, words, NaN or infinity among the
    numbers, rows of different length, columns that are not there, and no rows.
    """
    refuse_pipe(path)
    if not path.is_file():
        raise ValueError(f"No score file at {path}; expected one row per image.")
    kind = path.suffix.lower()
    if kind not in READERS:
        raise ValueError(
            f"{path} is no kind of score file that is read; allowed: {', '.join(READERS)}."
        )
    read = READERS[kind](path, wanted)
    if not len(read.rows):
        raise ValueError(f"{path} has no rows of scores.")
    if not (finite := np.isfinite(read.rows)).all():
        row, column = np.argwhere(~finite)[0]
        at = score_text.first_row(path) if kind in TEXT else 1
        raise ValueError(
            f"{path}, row {row + at}: expected finite numbers, got {read.rows[row, column]} in "
            f"{read.names[column]!r}."
        )
    return read


def read_scores(path: Path, drop_first_row: bool = False) -> np.ndarray:
    """(N, F) float64 rows of one file; a header of words is skipped.

    `drop_first_row` loses the first row of numbers too, as CLiD's code does.

    Raises ValueError as `read_columns` does.
    """
    rows = read_columns(path).rows
    if drop_first_row and len(rows) == 1:
        raise ValueError(f"{path} has no rows of scores.")
    return rows[1:] if drop_first_row else rows


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
    write_text(path, "\n".join(lines) + "\n")


def _text(path: Path, wanted: Sequence[str]) -> Columns:
    return Columns(*score_text.read(path, wanted, chosen))


def _npy(path: Path, wanted: Sequence[str]) -> Columns:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        pickled = "pickle" in str(error) or "Object arrays" in str(error)
        reason = "it is pickled or no array, and pickles can run programs" if pickled else error
        raise ValueError(
            f"{path} is no array of numbers that can be read ({reason}); save one with numpy.save."
        ) from error
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}; expected numbers of shape (rows,) "
            "or (rows, columns)."
        )
    return _unnamed(array, path, wanted)


def _safetensors(path: Path, wanted: Sequence[str]) -> Columns:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}).") from error
    if len(tensors) == 1 and next(iter(tensors.values())).ndim == 2:
        return _unnamed(next(iter(tensors.values())).double().numpy(), path, wanted)
    names = chosen(list(tensors), wanted, path)
    columns = [tensors[name] for name in names]
    if wrong := [n for n, c in zip(names, columns, strict=True) if c.ndim != 1 or c.is_complex()]:
        raise ValueError(
            f"{path}: {wrong[0]!r} has shape {tuple(tensors[wrong[0]].shape)}; expected one tensor "
            "of shape (rows, columns), or for each column one of shape (rows,)."
        )
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{n!r} {len(c)}" for n, c in zip(names, columns, strict=True))
        raise ValueError(f"{path}: columns of different length ({lengths} rows).")
    rows = [column.double().numpy() for column in columns]
    return Columns(names, np.stack(rows, 1) if rows else np.empty((0, 0)), True)


def _parquet(path: Path, wanted: Sequence[str]) -> Columns:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"{path}: Parquet is read with pyarrow, which is not installed; "
            "pip install 'shortcut_lightning[parquet]'."
        ) from error
    try:
        schema = parquet.read_schema(path)
        names = chosen(schema.names, wanted, path)
        table = parquet.read_table(path, columns=names)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ValueError(f"{path} is no Parquet file that can be read ({error}).") from error
    for name in names:
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise ValueError(
                f"{path}: column {name!r} holds {kind}, not numbers; name the columns of scores "
                f"(of {', '.join(schema.names)})."
            )
    columns = [table[name].to_numpy().astype(np.float64) for name in names]
    return Columns(names, np.stack(columns, 1) if columns else np.empty((0, 0)), True)


def _unnamed(array: np.ndarray, path: Path, wanted: Sequence[str]) -> Columns:
    rows = array[:, None] if array.ndim == 1 else array
    names = score_text.numbered(rows.shape[1])
    kept = chosen(names, wanted, path)
    places = [names.index(name) for name in kept]
    return Columns(kept, np.ascontiguousarray(rows[:, places], dtype=np.float64), False)


def chosen(names: list[str], wanted: Sequence[str], path: Path) -> list[str]:
    """The wanted names, all where none are. Raises ValueError for one that is not there."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} has two columns named {twice[0]!r}.")
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}.")
    return list(wanted) or names


TEXT = (".txt", ".tsv", ".csv")
READERS: dict[str, Callable[[Path, Sequence[str]], Columns]] = {
    **dict.fromkeys(TEXT, _text),
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
}
