"""Runs the cells of a matrix, and goes on where it was stopped.

A cell is finished once `cell.json` in its folder says so for the same command line, files, code and
built-in weights, or a kept row does.
The run itself is an ordinary one: whoever calls hands in the function that runs a command line.

Any number of runners may work in one folder at the same time. Each takes shares (the cells of one
rank, subject and seed) that no other holds, so that what their stages make is made once; when none
is left it helps with the others' shares, a training at a time. The locks are the operating
system's, so a runner that is killed leaves none behind.
"""

import json
import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from shortcut_lightning.bench.code import is_changed
from shortcut_lightning.bench.matrix import Cell, Matrix, slug
from shortcut_lightning.bench.rows import Rows
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.code import deciding_code, deciding_weights, tensors_alone

log = logging.getLogger(__name__)

STATE = "cell.json"
_OTHER_WEIGHTS = "other built-in weights"


class Group(NamedTuple):
    """Cells that share a training."""

    cells: list[Cell]
    last: int  # number of the last of them in the matrix
    total: int  # cells in all


class Runner:
    """One pass over a matrix.

    Args:
        matrix: What is run.
        folder: The folder of the matrix's file.
        run: Runs a command line in this process, raising what goes wrong.
        tell: Shows a line to the user.
        keep_stale: Take cells for finished that another state of the package's code has made.
        kept: Rows of cells whose runs may be gone; they count where their keys are still right.
    """

    def __init__(
        self,
        matrix: Matrix,
        folder: Path,
        run: Callable[[list[str]], None],
        tell: Callable[[str], None],
        keep_stale: bool = False,
        kept: Rows | None = None,
    ) -> None:
        self.matrix, self.folder, self.run, self.tell = matrix, folder, run, tell
        self.keep_stale = keep_stale
        self.kept = kept or Rows()
        self.root = Path(matrix.output_dir)
        self.failures: dict[str, str] = {}  # cell -> what went wrong

    def all(self) -> None:
        """Runs what is not finished and what no other runner is working on. A cell that breaks is
        noted and the others go on; a mistake in the very first one is raised."""
        shares = self._shares()
        self.tell_stale()
        total, before = sum(map(len, shares)), 0
        elsewhere = []
        for share in shares:
            first = share[0]
            try:
                with self._lock(first, f".lock-{first.rank}"):
                    self._share(share, before, total)
            except Timeout:
                self.tell(f"Another process is at work on {first.subject}, seed {first.seed}")
                elsewhere.append((share, before))
            before += len(share)
        for share, start in elsewhere:
            self._share(share, start, total)

    def groups(self) -> list[Group]:
        """Cells that share a training, in the order in which they are to be run."""
        shares = self._shares()
        total, before = sum(map(len, shares)), 0
        found = []
        for share in shares:
            found += self._groups(share, before, total)
            before += len(share)
        return found

    def group(self, group: Group) -> None:
        """Runs what is not finished of a group, once nobody else is at it."""
        with self._lock(group.cells[0], f".lock-{slug(group.cells[0].trained_as)}", timeout=-1):
            self._group(*group)

    def is_pending(self, group: Group) -> bool:
        """Whether there is something to run."""
        return not all(map(self.finished, group.cells))

    def bare(self) -> "Runner":
        """The same without what it tells and has noted, for another process."""
        return Runner(self.matrix, self.folder, self.run, log.info, self.keep_stale, self.kept)

    def _shares(self) -> list[list[Cell]]:
        cells = groupby(self.matrix.cells(), key=lambda c: (c.rank, c.subject, c.seed))
        return [list(share) for _, share in cells]

    def _groups(self, share: list[Cell], before: int, total: int) -> list[Group]:
        groups = []
        for _, sharing in groupby(share, key=lambda cell: cell.trained_as):
            cells = list(sharing)
            before += len(cells)
            groups.append(Group(cells, before, total))
        return groups

    def _lock(self, cell: Cell, name: str, timeout: float = 0) -> FileLock:
        folder = cell.folder(self.root).parent
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / name, timeout=timeout)

    def _share(self, share: list[Cell], before: int, total: int) -> None:
        for group in self._groups(share, before, total):
            try:
                with self._lock(group.cells[0], f".lock-{slug(group.cells[0].trained_as)}"):
                    self._group(*group)
            except Timeout:  # the other does it
                continue

    def _group(self, group: list[Cell], last: int, total: int) -> None:
        """Runs cells that share a training; `last` is the number of the last of them in all."""
        pending = [cell for cell in group if not self.finished(cell)]
        for number, cell in enumerate(self._work(group, pending)):
            done = last - len(pending) + number + 1
            self.tell(f"[{min(done, last)}/{total}] {named(cell)}")
            try:
                self._one(cell)
            except Exception as error:
                if not self._any_finished():
                    raise
                self.failures[named(cell)] = str(error).strip() or repr(error)
                log.exception("Cell %s failed", cell)
                break  # those that share its training cannot go on
        if not self.matrix.keep_checkpoints:
            self._discard_checkpoints(group)

    def finished(self, cell: Cell) -> bool:
        """Whether there is a result for exactly this command line, by the code that is here."""
        return self.report(cell) is not None or self.is_kept(cell)

    def is_kept(self, cell: Cell) -> bool:
        """Whether kept rows have this result."""
        return cell.name in self.kept.ran and not self._row_outdated(cell)

    def without_runs(self) -> Rows:
        """Kept rows of cells that are finished and whose runs are not here."""
        cells = [c for c in self.matrix.cells() if not self.report(c) and self.is_kept(c)]
        return self.kept.only(cell.name for cell in cells)

    def report(self, cell: Cell) -> Path | None:
        """The report of a finished cell."""
        return self._report_of(cell) if not self.stale(cell) else None

    def stale(self, cell: Cell) -> str:
        """Why what there is of a cell does not count; "" where it does, or where nothing is."""
        noted = self._noted(cell)
        if self._report_of(cell) is None:
            return ""
        facts = (str(noted.get(name, "")) for name in ("key", "code", "weights"))
        return self._outdated(cell, *facts)

    def _row_outdated(self, cell: Cell) -> str:
        """The same of its kept row; one that notes no weights is known by its model's."""
        row = self.kept.ran.get(cell.name)
        if row is None:
            return ""
        reason = self._outdated(cell, row.key, row.code, row.weights)
        changed = not reason and not row.weights and is_changed(row.model)
        return _OTHER_WEIGHTS if changed else reason

    def _outdated(self, cell: Cell, key: str, code: str, weights: str) -> str:
        """Why a result with this key, code and, where noted, weights does not count; "" where it
        does."""
        if key != self.matrix.key(cell, self.folder):
            return "other settings, pictures or code of your own files"
        if not self.keep_stale and code != deciding_code():
            return "another state of the package's code (--stale keep takes them as they are)"
        known = ("", deciding_weights(), tensors_alone())  # the last in older results
        return "" if weights in known else _OTHER_WEIGHTS

    def _report_of(self, cell: Cell) -> Path | None:
        report = cell.folder(self.root) / self._noted(cell).get("run", "") / "report.json"
        return report if report.is_file() else None

    def tell_stale(self) -> None:
        """Says how many cells have to run anew, and why; and for how many kept rows stand."""
        reasons = Counter(map(self._anew, self.matrix.cells()))
        for reason, count in reasons.items():
            if reason:
                self.tell(f"{count} finished cells were made by {reason}: they run anew")
        if kept := len(self.without_runs().ran):
            self.tell(f"{kept} cells are finished by the rows that are kept of them")

    def _anew(self, cell: Cell) -> str:
        """Why what there is of a cell, run or row, does not count; "" where it need not."""
        return "" if self.finished(cell) else self.stale(cell) or self._row_outdated(cell)

    def seconds(self, cell: Cell) -> float:
        """What a finished cell took, training and evaluation; NaN where it was not noted."""
        return float(self._noted(cell).get("seconds", math.nan))

    def code(self, cell: Cell) -> str:
        """Hash of the code that made a finished cell."""
        return str(self._noted(cell).get("code", ""))

    def weights(self, cell: Cell) -> str:
        """Hash of the built-in weights with which a finished cell was made."""
        return str(self._noted(cell).get("weights", ""))

    def reports(self) -> list[tuple[Cell, Path]]:
        """All finished cells with their reports."""
        cells = self.matrix.cells()
        return [(cell, path) for cell in cells if (path := self.report(cell))]

    def _work(self, group: list[Cell], pending: list[Cell]) -> list[Cell]:
        """What has to run: evaluations need the training of the group's first cell."""
        first = group[0]
        # A kept row may have finished the first cell, and an older run of it still hold weights.
        trained = self.report(first) and self._checkpoint(first)
        if pending and pending[0] is not first and not trained:
            return [first, *pending]
        return pending

    def _one(self, cell: Cell) -> None:
        trains = cell.arm == cell.trained_as
        checkpoint = "" if trains else self._checkpoint(cell._replace(arm=cell.trained_as))
        folder = cell.folder(self.root)
        before = _reports_in(folder)
        began = monotonic()
        self.run(self.matrix.command(cell, self.folder, checkpoint))
        seconds = round(monotonic() - began, 1)
        written = {path: at for path, at in _reports_in(folder).items() if before.get(path) != at}
        newest = max(written, key=written.__getitem__, default=None)
        if newest is None:
            raise ValueError(
                f"The cell {cell.arm} left no report.json in {folder}; the base configuration "
                "needs the callbacks Evaluation and ReportWriter."
            )
        key = self.matrix.key(cell, self.folder)
        state = {
            "key": key,
            "code": deciding_code(),
            "weights": deciding_weights(),
            "run": newest.parent.name,
            "seconds": seconds,
        }
        with atomic(folder / STATE) as half:
            half.write_text(json.dumps(state) + "\n", encoding="utf-8")

    def _checkpoint(self, cell: Cell) -> str:
        run = self._noted(cell).get("run", "")
        file = cell.folder(self.root) / run / "checkpoints" / "last.ckpt"
        return str(file) if file.is_file() else ""

    def _noted(self, cell: Cell) -> dict[str, Any]:
        """What was written down when the cell was finished; nothing where it was not."""
        state = cell.folder(self.root) / STATE
        try:
            return dict(json.loads(state.read_text("utf-8"))) if state.is_file() else {}
        except ValueError:  # written by something that a full disk or a kill cut off
            return {}

    def _discard_checkpoints(self, group: list[Cell]) -> None:
        for cell in group:
            for folder in cell.folder(self.root).glob("version_*/checkpoints"):
                shutil.rmtree(folder)

    def _any_finished(self) -> bool:
        return any(self.root.rglob(STATE))


def _reports_in(folder: Path) -> dict[Path, int]:
    """The reports of a cell's runs, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("version_*/report.json")}


def named(cell: Cell) -> str:
    """A cell as a user is told of it."""
    return f"{cell.arm}, {cell.subject}, seed {cell.seed}"
