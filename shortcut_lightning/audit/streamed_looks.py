"""What is kept of a streamed picture beside its scores, and the controls that come from it:
baselines without a model, of a random sample, and near-copies across sets, of all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shortcut_lightning.audit.blind import (
    FOLDS,
    Blind,
    bag_of_words,
    file_metadata,
    image_statistics,
    judged,
)
from shortcut_lightning.audit.duplicates import BITS, LIKENESS, signature
from shortcut_lightning.audit.near_hashes import close_pairs, packed
from shortcut_lightning.cluster.sources import Row, arrow
from shortcut_lightning.membership.pictures import Picture
from shortcut_lightning.metrics.encoders import ImageEncoder, image_features

SAMPLE = 20_000  # pictures of each set that baselines look at: an AUC's error is 0.003 then
NAMED = 5  # pairs of near-copies that are named
_AT_A_TIME = 2**16  # pairs whose small pictures are in memory
_PLACES = (37, 7)  # numbers about the image and about its file; then those of the encoder


class Table(NamedTuple):
    """What was measured of a set, in memory: (N,) keys of the pictures, (N,) hashes of them and of
    their mirror images, (N, F) features by column. The rest lies in the files of `folder`."""

    folder: Path
    keys: np.ndarray
    bits: np.ndarray
    mirrored: np.ndarray
    columns: dict[str, np.ndarray]


class Some(NamedTuple):
    """Rows of a set's table."""

    of: str
    rows: np.ndarray


def looks(
    rows: Sequence[Row],
    pictures: Sequence[Picture],
    blind: bool,
    encoder: ImageEncoder | None,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Columns of each picture: hashes and a small picture of 768 bytes, and with `blind` the
    caption and float32 numbers about image, file and embedding."""
    images = [picture.pixels() for picture in pictures]
    made = [_hashes(image) for image in images]
    if not blind:
        return made
    some = torch.empty(len(images), 0)
    if encoder:
        some = image_features(encoder, torch.stack(images), device)
    for each, row, picture, image, features in zip(made, rows, pictures, images, some, strict=True):
        numbers = [image_statistics(image), file_metadata(row.data), features.numpy()]
        each["caption"] = picture.caption
        each["looks"] = np.concatenate(numbers).astype(np.float32).tobytes()
    return made


def _hashes(image: torch.Tensor) -> dict[str, Any]:
    own = signature(image)
    bits, mirrored = packed(own.bits).tolist()
    small = np.round(own.small * (127 / max(float(np.abs(own.small).max()), 1e-6)))
    return {"bits": bits, "mirrored": mirrored, "small": small[0].astype(np.int8).tobytes()}


def read(folder: Path) -> Table:
    """The tables of all parts, in order of the parts."""
    own: dict[str, list[np.ndarray]] = {"key": [], "bits": [], "mirrored": []}
    columns = dict[str, list[np.ndarray]]()
    for file in _files(folder):
        measured = [name for name in arrow().read_schema(file).names if " on " in name]
        table = arrow().read_table(file, columns=[*own, *measured])
        for name, found in own.items():
            found.append(table.column(name).to_numpy())
        for name in measured:
            flat = table.column(name).combine_chunks().flatten().to_numpy()
            columns.setdefault(name, []).append(flat.reshape(table.num_rows, -1))
    keys, bits, mirrored = (np.concatenate(found) for found in own.values())
    together = {name: np.concatenate(found) for name, found in columns.items()}
    return Table(folder, keys, bits, mirrored, together)


def near_copies(first: Table, second: Table, kept: Sequence[np.ndarray], what: str) -> list[str]:
    """A sentence about near-copies across two sets; none where there are none. `kept` are the rows
    of both that count."""
    count, named = 0, list[str]()
    own, other = kept
    sides = (first.bits[own], first.mirrored[own])
    pairs = [close_pairs(side, second.bits[other], BITS) for side in sides]
    for mirror, (i, j) in enumerate(pairs):
        for start in range(0, len(i), _AT_A_TIME):
            block = slice(start, start + _AT_A_TIME)
            rows = own[i[block]], other[j[block]]
            likeness = (_small(first, rows[0], bool(mirror)) * _small(second, rows[1])).sum(1)
            alike = likeness >= LIKENESS
            if mirror:  # a picture that is its own mirror image was found before
                alike &= ~_among((i[block], j[block]), pairs[0])
            count += int(alike.sum())
            named += _named(first, second, rows, likeness, np.flatnonzero(alike)[:NAMED])
    if not count:
        return []
    some = "; ".join(named[:NAMED])
    verb = f"{count} pairs of {what} are near-copies" if count > 1 else f"A pair of {what} is one"
    return [f"{verb}: {some}{'; ...' if count > NAMED else ''}. The second is half a member."]


def blind_of(sets: Sequence[tuple[Table, np.ndarray]], seed: int, encoder: str) -> list[Blind]:
    """Baselines without a model, from at most `SAMPLE` rows of each set, drawn at random.

    Args:
        sets: The tables of members and hold-outs, each with the rows that are judged.
        seed: Of the draw and the folds.
        encoder: The name of whose embeddings are there; empty for none.
    """
    rng = np.random.default_rng(seed)
    sampled = [(table, np.sort(rng.permutation(rows)[:SAMPLE])) for table, rows in sets]
    sizes = [len(rows) for _, rows in sampled]
    if min(sizes) < FOLDS:
        return []
    captions = [text for table, rows in sampled for text in some_of(table, rows, "caption")]
    data = b"".join(each for table, rows in sampled for each in some_of(table, rows, "looks"))
    numbers = np.frombuffer(data, np.float32).reshape(sum(sizes), -1).astype(np.float64)
    statistics, metadata, embedding = np.split(numbers, np.cumsum(_PLACES), axis=1)
    found: list[tuple[str, Any]] = []
    if len(set(captions)) > 1:
        found.append(("captions", bag_of_words(captions)))
    found.append(("image statistics", statistics))
    if encoder:
        found.append((f"embeddings ({encoder})", embedding))
    found.append(("file metadata", metadata))
    return judged(found, np.repeat([1, 0], sizes), seed)


def _files(folder: Path) -> list[Path]:
    return [
        file for file in sorted(folder.glob("*.parquet")) if arrow().read_metadata(file).num_rows
    ]


def some_of(table: Table, rows: np.ndarray, column: str) -> list[Any]:
    """Values of a column that is not kept in memory, in the order of `rows`."""
    different, places = np.unique(rows, return_inverse=True)
    values: list[Any] = []
    start = 0
    for file in _files(table.folder):
        stop = start + arrow().read_metadata(file).num_rows
        own = different[(different >= start) & (different < stop)] - start
        if len(own):
            values += arrow().read_table(file, columns=[column]).column(0).take(own).to_pylist()
        start = stop
    return [values[place] for place in places]


def _small(table: Table, rows: np.ndarray, mirror: bool = False) -> NDArray[np.float32]:
    data = b"".join(some_of(table, rows, "small"))
    small = np.frombuffer(data, np.int8).reshape(-1, 3, 16, 16).astype(np.float32)
    flat = (small[..., ::-1] if mirror else small).reshape(len(small), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _among(pairs: tuple[np.ndarray, np.ndarray], known: tuple[np.ndarray, np.ndarray]) -> Any:
    width = max([1, *(int(each.max()) + 1 for each in (pairs[1], known[1]) if len(each))])
    return np.isin(pairs[0] * width + pairs[1], known[0] * width + known[1])


def _named(
    first: Table,
    second: Table,
    rows: tuple[np.ndarray, np.ndarray],
    likeness: np.ndarray,
    places: np.ndarray,
) -> list[str]:
    names = [
        some_of(table, own[places], "name")
        for table, own in zip((first, second), rows, strict=True)
    ]
    return [
        f"{a} and {b} (likeness {min(1.0, float(likeness[place])):.3f})"
        for a, b, place in zip(*names, places, strict=True)
    ]
