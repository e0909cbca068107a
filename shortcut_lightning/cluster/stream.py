"""Rows of a source through a piece of work into an output, part by part, with flat memory.

A part is written whole, then noted as finished; a driver that was killed goes on with the parts
that are not, by the same command. A row that cannot be read, or at which the work fails, is named,
counted and left out, and the others go on, up to a limit.
"""

import hashlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shortcut_lightning.cluster.journal import Journal
from shortcut_lightning.cluster.pool import Pool, Work
from shortcut_lightning.cluster.sinks import Output
from shortcut_lightning.cluster.sources import Broken, Part, Row, rows_of

RECIPE = "recipe.json"
_NAMED = 5  # failures that a message names


class Job(ABC):
    """What is done to rows. It is pickled to workers, as `Work` is.

    Attributes:
        batch_size: Rows that are done together; 0 for all of a part that can be.
    """

    batch_size: int

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """See `Work`."""
        return nullcontext()

    @abstractmethod
    def prepare(self, row: Row) -> Any:
        """What is done together with others. Raises ValueError for a row that cannot be used."""

    @abstractmethod
    def alike(self, prepared: Any) -> Hashable:
        """Rows of which this is equal are done together; None for a row that is done alone."""

    @abstractmethod
    def do(self, part: Part, rows: Sequence[Row], prepared: Sequence[Any]) -> Sequence[Any]:
        """A result for each row, as the output takes it."""

    def count(self, results: Sequence[Any]) -> dict[str, float]:
        """Numbers about a part's results that can be added up."""
        return {}


@dataclass
class Tally:
    """What came of a source: rows that were done, failures by name, numbers that were added up."""

    rows: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, facts: dict[str, Any]) -> None:
        """Adds what a finished part noted."""
        self.rows += facts["rows"]
        self.failures |= facts["failures"]
        for name, value in facts["counts"].items():
            self.counts[name] = self.counts.get(name, 0.0) + value

    def told(self) -> str:
        """The failures in a line; "" where there are none."""
        some = [f"{name} {why}" for name, why in list(self.failures.items())[:_NAMED]]
        more = ", ..." if len(self.failures) > _NAMED else ""
        return f"{len(self.failures)} left out: {'; '.join(some)}{more}" if some else ""


@dataclass
class Streaming(Work):
    """Does a part of a source and writes what comes of it.

    Args:
        job: What is done.
        output: Where it goes.
        journals: Folder of the journals.
    """

    job: Job
    output: Output
    journals: Path

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """See `Work`."""
        return self.job.ready(device)

    def __call__(self, part: Part) -> dict[str, Any]:
        """What is known of the part once it is written."""
        journal, failures = Journal(self.journals / f"{part.label}.journal"), dict[str, str]()
        finished = False
        try:
            results = dict(self._results(part, journal, failures))
            ordered = [results[row] for row in sorted(results)]
            self.output.write(part.label, ordered)
            facts = {
                "rows": len(ordered),
                "failures": failures,
                "counts": self.job.count(ordered),
            }
            self.output.finish(part.label, facts)
            finished = True
        finally:
            journal.close(finished)
        return facts

    def _results(
        self, part: Part, journal: Journal, failures: dict[str, str]
    ) -> Iterator[tuple[int, Any]]:
        waiting: dict[Hashable, list[tuple[Row, Any]]] = {}
        for row in rows_of(part):
            if isinstance(row, Broken):
                failures[f"{part.label}/{row.name}"] = row.reason
                continue
            if row.number in journal.blamed:
                failures[f"{part.label}/{row.name}"] = journal.blamed[row.number]
                continue
            journal.begin([row.number])
            try:
                prepared = self.job.prepare(row)
            except ValueError as error:
                failures[f"{part.label}/{row.name}"] = str(error)
                continue
            finally:
                journal.end()
            like = None if row.number in journal.alone else self.job.alike(prepared)
            group = waiting.setdefault(like, [])
            group.append((row, prepared))
            if like is None or len(group) == self.job.batch_size:
                yield from self._done(part, waiting.pop(like), journal, failures)
        for group in waiting.values():
            yield from self._done(part, group, journal, failures)

    def _done(
        self,
        part: Part,
        group: list[tuple[Row, Any]],
        journal: Journal,
        failures: dict[str, str],
    ) -> Iterator[tuple[int, Any]]:
        rows = [row for row, _ in group]
        journal.begin([row.number for row in rows])
        try:
            results = self.job.do(part, rows, [prepared for _, prepared in group])
        except Exception as error:
            why = f"failed ({type(error).__name__}: {error})"
        else:
            why = ""
        journal.end()
        if not why:
            yield from zip((row.number for row in rows), results, strict=True)
        elif len(group) == 1:
            failures[f"{part.label}/{rows[0].name}"] = why
        else:  # one of them is to blame
            for each in group:
                yield from self._done(part, [each], journal, failures)


def stream(
    job: Job,
    parts: Sequence[Part],
    output: Output,
    recipe: dict[str, Any],
    pool: Pool,
    device: torch.device,
    max_failures: int,
) -> Tally:
    """Does the parts that are not finished, and adds up what came of all.

    Args:
        job: What is done.
        parts: Of the source.
        output: Where it goes.
        recipe: All that decides the results, as plain types; it is noted in the output.
        pool: Who does it.
        device: This process's.
        max_failures: So many rows may fail before it stops.

    Raises ValueError for an output of another recipe, and where too many rows fail, or all.
    """
    tally, done = Tally(), dict[str, Any]()
    if output.noted(RECIPE) == recipe:
        done = output.finished()
    elif output.holds_others():
        raise ValueError(
            f"{output.address} already holds something that this command did not make, or made "
            "of files that have changed since; give another --output."
        )
    output.note(RECIPE, recipe)
    todo = [part for part in parts if part.label not in done]
    for part in parts:
        if part.label in done:
            tally.add(done[part.label])
    journals = output.journals() or _beside(output, recipe)
    _refuse(tally, max_failures)
    for _, facts in pool.map(Streaming(job, output, journals), todo, device):
        tally.add(facts)
        _refuse(tally, max_failures)
    if tally.failures and not tally.rows:
        raise ValueError(f"Of all pictures nothing came: {tally.told()}.")
    return tally


def _beside(output: Output, recipe: dict[str, Any]) -> Path:
    """A folder of this machine for the journals of an output that is not on a disk: of no other
    output or recipe, whose parts have the same names and other rows."""
    said = json.dumps([output.address, recipe], sort_keys=True)
    whose = hashlib.sha256(said.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / "shortcut_lightning_parts" / whose


def _refuse(tally: Tally, most: int) -> None:
    if len(tally.failures) > most:
        raise ValueError(
            f"{tally.told()}. --max_failures allows {most}; parts that are finished are kept, and "
            "the same command with a larger one goes on."
        )
