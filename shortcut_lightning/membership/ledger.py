"""Measured features on disk, a row per image as soon as it is known.

One tab-separated file per score and model. The file's name holds a hash of all settings that change
its numbers, so a run with other settings never reads the wrong file, and a killed run goes on where
it stopped.
"""

import hashlib
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
        self.rows.update(zip(names, features.astype(np.float64), strict=True))
        if self.path:
            lines = [
                "\t".join([name, *(f"{value:.9g}" for value in row)]) + "\n"
                for name, row in zip(names, features, strict=True)
            ]
            with self.path.open("a", encoding="ascii") as file:
                file.writelines(lines)

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        text = path.read_text(encoding="ascii")
        whole = text[: text.rfind("\n") + 1]
        if len(whole) < len(text):  # the last row was cut off by a kill
            path.write_text(whole, encoding="ascii")
        for line in whole.splitlines():
            name, *values = line.split("\t")
            self.rows[name] = np.array(values, dtype=np.float64)
