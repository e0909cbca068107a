"""A matrix on Ray: cells that share a training are a task with its resources, on any machine that
sees the folder of the runs. A task whose worker or machine is lost is begun again elsewhere, where
the finished cells of it are found."""

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from shortcut_lightning.bench.matrix import Cell
from shortcut_lightning.bench.runner import Group, Runner, named
from shortcut_lightning.cluster.ray_pool import connected, threads_of
from shortcut_lightning.cluster.worker import Place, portable

LOSSES = 20  # so often a task is begun whose workers are lost


class Said(NamedTuple):
    """What a task has to tell: lines, cells that failed, and a mistake that stops everything."""

    lines: list[str]
    failures: dict[str, str]
    mistake: Exception | None


def run_on_ray(runner: Runner, workers: int, gpus_per_worker: float) -> None:
    """Runs what is not finished, at most `workers` tasks at a time, and notes failures in the
    runner, as `Runner.all` does.

    Raises ValueError where there is no such Ray, and the mistake of a first cell.
    """
    runner.tell_stale()
    waiting = [group for group in runner.groups() if runner.is_pending(group)]
    with connected(workers, gpus_per_worker) as ray:
        place = Place.here(threads_of(ray.cluster_resources(), workers))
        options = {"num_cpus": 1, "num_gpus": gpus_per_worker, "max_retries": LOSSES}
        task = ray.remote(max_calls=1, **options)(_run)  # a process for each, as if by hand
        bare = pickle.dumps(runner.bare())  # read once the worker is where its modules are
        running: dict[Any, Group] = {}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    group = waiting.pop(_next(waiting, list(running.values())))
                    started = task.remote(place, bare, group)
                    running[started] = group
                done = ray.wait(list(running))[0][0]
                group = running.pop(done)
                _take(ray, done, runner, group)
        finally:
            for left in running:
                ray.cancel(left, force=True)


def _next(waiting: Sequence[Group], running: Sequence[Group]) -> int:
    """The first whose subject and seed nobody is at, so that what stages make is made once; where
    there is none, the first."""
    taken = {_share(group.cells[0]) for group in running}
    free = (n for n, group in enumerate(waiting) if _share(group.cells[0]) not in taken)
    return next(free, 0)


def _share(cell: Cell) -> tuple[str, int]:
    return cell.subject, cell.seed


def _take(ray: Any, done: Any, runner: Runner, group: Group) -> None:
    try:
        said: Said = ray.get(done)
    except ray.exceptions.RayError as error:
        runner.failures[named(group.cells[0])] = f"lost {LOSSES} workers, or Ray failed: {error}"
        return
    for line in said.lines:
        runner.tell(line)
    runner.failures |= said.failures
    if said.mistake:
        raise said.mistake


def _run(place: Place, pickled: bytes, group: Group) -> Said:
    """In a worker: the cells of a group that are not finished."""
    place.enter()
    runner: Runner = pickle.loads(pickled)
    lines: list[str] = []
    runner.tell, runner.failures = lines.append, {}
    try:
        runner.group(group)
    except Exception as error:
        return Said(lines, runner.failures, portable(error))
    return Said(lines, runner.failures, None)
