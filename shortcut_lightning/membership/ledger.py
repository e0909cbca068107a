"""Measured features on disk, a row per image as soon as it is known.

One tab-separated file per score and model. The file's name holds a hash of all settings that change
its numbers, so a run with other settings never reads the wrong file, and a killed run goes on where
it stopped. Several processes may add to one file: nobody rewrites it, and damaged rows are passed
over and measured anew.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np


class Ledger:
    """The rows of one score on one model. Without a folder nothing is written.

    Args:
        folder: Where the file lies; None keeps the rows in memory only.
        stem: Readable beginning of the file's name.
        settings: All that changes the numbers; hashed into the name.
    """

    def __init__(self, folder: Path | None, stem: str, settings: str) -> None:
        self.rows: dict[str, np.ndarray] = {}
        digest = hashlib.sha256(settings.encode()).hexdigest()[:10]
        self.path = folder / f"{stem}-{digest}.tsv" if folder else None
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._read(self.path)

    def append(self, names: list[str], features: np.ndarray) -> None:
        """Adds (N, F) features under N names, on disk before this returns."""
        written = [[f"{value:.9g}" for value in row] for row in features]
        # As they will be read: an audit that was cut off ends in the numbers of one that was not.
        self.rows.update(zip(names, np.array(written, np.float64), strict=True))
        if self.path:
            lines = [
                "\t".join([name, *row]) + "\n" for name, row in zip(names, written, strict=True)
            ]
            with self.path.open("ab+", buffering=0) as file:  # all rows in one write
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 1))
                # Half a row may look whole, as 0.1 does for 0.123: a word makes it no numbers.
                broken = "" if file.read(1) in (b"\n", b"") else "\tcut\n"
                file.write("".join([broken, *lines]).encode("ascii"))

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        found: list[tuple[str, np.ndarray]] = []
        # Behind the last line's end is nothing, or half a row: of a kill, or still being written.
        for line in path.read_text(encoding="ascii").split("\n")[:-1]:
            name, *values = line.split("\t")
            try:
                found.append((name, np.array(values, dtype=np.float64)))
            except ValueError:
                continue
        widths = Counter(len(row) for _, row in found)
        self.rows = {name: row for name, row in found if widths[len(row)] == max(widths.values())}


def as_kept(features: np.ndarray) -> np.ndarray:
    """(N, F) features with the digits that files of them have, float64."""
    written = [[f"{value:.9g}" for value in row] for row in features]
    return np.array(written, np.float64)
