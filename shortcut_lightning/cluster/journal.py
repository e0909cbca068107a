"""What was begun with the rows of a part, so that a row that takes the process down is known after.

A fault inside a library (SIGSEGV, SIGABRT) leaves a note of `faulthandler`, a process that was
killed from outside leaves none: such a part is only begun again, unless that happens many times at
the same rows.
"""

import faulthandler
import json
import sys
from collections import Counter
from pathlib import Path

KILLS = 5  # so often a process may be killed at the same rows
_FAULT = "Fatal Python error"


class Journal:
    """Notes of one part.

    Args:
        path: Its file, on a disk that is still there when the process is not.

    Attributes:
        alone: Rows at which a process ended, together with others: to be done one by one.
        blamed: Rows at which it ended though they were alone, and how.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.alone: set[int] = set()
        self.blamed: dict[int, str] = {}
        if path.exists():
            self._read(path.read_text("utf-8", "replace").splitlines())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        faulthandler.enable(self._file, all_threads=False)

    def begin(self, rows: list[int]) -> None:
        """These rows are about to be done."""
        self._note(json.dumps(rows))

    def end(self) -> None:
        """They are done."""
        self._note("done")

    def close(self, finished: bool = False) -> None:
        """Ends the notes; those of a finished part go."""
        faulthandler.disable()
        if sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        self._file.close()
        if finished:
            self.path.unlink(missing_ok=True)

    def _note(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def _read(self, lines: list[str]) -> None:
        begun: list[int] = []
        killed: Counter[tuple[int, ...]] = Counter()
        for line in [*lines, "[]"]:
            if line.startswith(_FAULT):
                self._blame(begun, line.removeprefix(_FAULT).strip(": "))
                begun = []
            elif line == "done":
                begun = []
            elif line.startswith("["):
                if begun:
                    killed[tuple(begun)] += 1
                    if killed[tuple(begun)] >= KILLS:
                        self._blame(begun, f"killed {KILLS} times")
                try:
                    begun = [int(row) for row in json.loads(line)]
                except ValueError:  # half a line
                    begun = []

    def _blame(self, rows: list[int], how: str) -> None:
        if len(rows) == 1:
            self.blamed[rows[0]] = f"it ended the process ({how})"
        self.alone.update(rows)
