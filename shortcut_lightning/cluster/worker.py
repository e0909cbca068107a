"""The process at the other end: it holds the models and does parts as they come."""

import linecache
import os
import pickle
import sys
import traceback
import warnings
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import torch

_PASSED_ON = ("SHORTCUT_LIGHTNING_", "HF_", "PL_GLOBAL_SEED")


class WorkerFailed(RuntimeError):
    """What a worker's code raised that no user can repair; the text is its traceback."""


class Place(NamedTuple):
    """Where the driver is, for workers to be there too: folders and variables that paths and
    settings are relative to."""

    folder: str
    paths: list[str]  # where modules are found, a user's own among them
    variables: dict[str, str]
    threads: int  # of torch in each worker

    @classmethod
    def here(cls, threads: int) -> "Place":
        """This process's."""
        own = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
        return cls(os.getcwd(), [os.path.abspath(path) for path in sys.path], own, threads)

    def enter(self) -> None:
        """Goes there; a machine that lacks the folder stays where it is."""
        os.environ.update(self.variables | {"OMP_NUM_THREADS": str(self.threads)})
        sys.path += [path for path in self.paths if path not in sys.path]
        with suppress(OSError):
            os.chdir(self.folder)
        torch.set_num_threads(self.threads)


class Outcome(NamedTuple):
    """What came of a part: its result, or what was raised."""

    result: Any
    warned: list[tuple[Warning, type[Warning], str, int]]
    error: Exception | None = None

    def unwrap(self) -> Any:
        """The result; warns and raises as the work did."""
        for warning, kind, file, line in self.warned:
            warnings.warn_explicit(warning, kind, file, line)
        if self.error is not None:
            raise self.error
        return self.result


class Worker:
    """An actor of Ray Data's `map_batches`; batches are single rows.

    Args:
        held: A list with the reference of the pickled work.
        place: Where the driver is.
        device: Where the models go.
    """

    def __init__(self, held: list[Any], place: Place, device: str) -> None:
        import ray

        place.enter()
        self.work = ray.get(held[0])
        self.inside = ExitStack()
        self.inside.enter_context(self.work.ready(torch.device(device)))

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[Any]]:
        outcomes = [pickle.dumps(self._done(pickle.loads(each))) for each in rows["part"]]
        return {"number": list(rows["number"]), "outcome": outcomes}

    def _done(self, part: Any) -> Outcome:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                result, error = self.work(part), None
            except Exception as raised:
                result, error = None, portable(raised)
        said = [each for each in caught if isinstance(each.message, Warning)]
        return Outcome(
            result,
            [(w.message, w.category, w.filename, w.lineno) for w in said],  # type: ignore[misc]
            error,
        )


def portable(error: Exception) -> Exception:
    """An error as it is raised where the work was asked for: one that was raised on purpose, for a
    user, stays what it is; what merely happened brings its traceback along."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno or 0)
    if isinstance(error, ValueError | ArithmeticError | ImportError) and "raise" in line.split():
        with suppress(Exception):
            pickle.loads(pickle.dumps(error))
            return error
    return WorkerFailed("in a worker:\n" + "".join(traceback.format_exception(error)))
