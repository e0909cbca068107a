"""The pool whose workers are Ray's actors: on this machine, or on all of a cluster.

Nothing of a user's pictures passes through Ray where they lie in files that workers can read; what
is pickled was made by this program, on the driver and on the workers.
"""

import logging
import os
import pickle
import socket
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from shortcut_lightning import stopping
from shortcut_lightning.cluster.pool import INSTALL, Work
from shortcut_lightning.cluster.worker import Place, Worker, WorkerFailed
from shortcut_lightning.files.reading import read_text

TRIES = 20  # how often a part is begun whose workers are lost
_BLOCKS = 4096  # at most so many tasks; more parts than that share them
# Ray asks these when it is imported; nobody is told that it runs.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of its actors for statistics, when a node is lost
}
# Its name is about other systems. Off, nodes know each other by the loopback and listen there only.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_RUNNING = "ray/ray_current_cluster"  # in the folder for temporary files, while `ray start` runs


def imported() -> Any:
    """Ray with Ray Data. Raises ValueError where it is not installed."""
    for name, value in (_QUIET if _is_joined() else _QUIET | _LOOPBACK).items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(f"--engine ray needs Ray ({error}): {INSTALL}") from error
    return ray


@contextmanager
def connected(workers: int, gpus_per_worker: float = 0.0) -> Iterator[Any]:
    """Ray: the one of RAY_ADDRESS, else one that runs on this machine, else one that is started
    here and ends with this process. Its own program may have connected before.

    Raises ValueError where no Ray answers, or it has no such workers.
    """
    ray = imported()
    own = not ray.is_initialized()
    if own:
        _connect(ray)
        stopping.listen()  # Ray has put a handler of its own first
    try:
        _check(ray.cluster_resources(), workers, gpus_per_worker)
        yield ray
    finally:
        if own:
            ray.shutdown()


def _is_joined() -> bool:
    """Whether there is a Ray to join: one was named, or runs on this machine."""
    return _address() not in ("", "local")


def _address() -> str:
    """Of the Ray to join: the one that was named, or that `ray start` left here; "" for none."""
    if given := os.environ.get("RAY_ADDRESS"):
        return given
    running = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / _RUNNING
    return read_text(running).strip() if running.is_file() else ""


def _connect(ray: Any) -> None:
    address = _address()
    try:
        if address not in ("", "local", "auto"):
            _knock(address)
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        left = "" if os.environ.get("RAY_ADDRESS") else ", which `ray start` left on this machine"
        raise ValueError(
            f"No Ray answers at {address}{left} ({error}); start one, or set RAY_ADDRESS to local."
        ) from error


def _knock(address: str) -> None:
    """Raises OSError or ValueError where nobody listens, as after a cluster that was killed: Ray
    would ask for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def _check(there: dict[str, float], workers: int, gpus: float) -> None:
    if gpus * workers > there.get("GPU", 0.0):
        raise ValueError(
            f"--workers {workers} with --gpus_per_worker {gpus:g} take {gpus * workers:g} GPUs, "
            f"and this Ray has {there.get('GPU', 0.0):g}."
        )
    if workers > there.get("CPU", 0.0):
        raise ValueError(
            f"--workers is {workers}, and this Ray has {there.get('CPU', 0.0):g} CPUs, of which "
            "each takes one."
        )


class RayPool:
    """Actors that hold the models.

    Args:
        workers: How many.
        gpus_per_worker: The share of a GPU that each takes; 0 works on the CPU.
    """

    def __init__(self, workers: int, gpus_per_worker: float = 0.0) -> None:
        self.workers, self.gpus = workers, gpus_per_worker

    def map(
        self, work: Work, parts: Iterable[Any], device: torch.device
    ) -> Iterator[tuple[int, Any]]:
        """See `Pool`. A part whose worker or machine is lost is begun again elsewhere."""
        import ray

        rows = [{"number": n, "part": pickle.dumps(part)} for n, part in enumerate(parts)]
        if not rows:
            return
        with warnings.catch_warnings():
            # Its own settings, and the number of tries, which has no other place in this version.
            warnings.simplefilter("ignore")
            done = self._dataset(ray, work, rows)
        try:
            for row in done.iter_rows():
                yield int(row["number"]), pickle.loads(row["outcome"]).unwrap()
        except ray.exceptions.RayError as error:
            raise WorkerFailed(
                f"Ray gave up on a part of the work, after {TRIES} workers that were lost at it "
                f"or for another reason: {error}"
            ) from error

    def _dataset(self, ray: Any, work: Work, rows: list[dict[str, Any]]) -> Any:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        place = Place.here(threads_of(ray.cluster_resources(), self.workers))
        blocks = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS))
        return blocks.map_batches(
            Worker,
            # Held by a list, which Ray hands on as it is.
            fn_constructor_args=([ray.put(work)], place, "cuda" if self.gpus else "cpu"),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(rows))),
            num_cpus=1,
            num_gpus=self.gpus,
            max_restarts=-1,
            max_task_retries=TRIES,
        )


def threads_of(there: dict[str, float], workers: int) -> int:
    """Of each worker: as many as this process was told to use, else its share of the cores."""
    if given := os.environ.get("OMP_NUM_THREADS"):
        return int(given)
    return max(1, int(there.get("CPU", 1.0)) // workers)
