"""Several processes at work on one matrix: on this machine, and as runs of a W&B sweep."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

_PROGRAM = "from shortcut_lightning.cli import main; main()"
PATIENCE = 30.0  # seconds that workers have to end when they are told to
_OF_A_SWEEP = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


def run_workers(argv: Sequence[str], count: int) -> int:
    """Runs the same command line in `count` processes, which share the work by its locks.

    They divide this machine's threads among them, unless OMP_NUM_THREADS is set, and its GPUs,
    one for each, or one for several where there are fewer. What they would
    inherit from a W&B agent is taken away: their cells are runs of their own.

    Args:
        argv: What follows the program's name.
        count: How many.

    Returns:
        How many of them failed; each has said why.
    """
    environment = {k: v for k, v in os.environ.items() if k not in _OF_A_SWEEP}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    command = [sys.executable, "-c", _PROGRAM, *argv]
    gpus = visible_gpus(environment)
    shares = [
        {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        for number in range(count)
    ]
    # In sessions of their own, so that Ctrl-C reaches this process alone, which tells them once.
    # Where it is killed, they end by themselves (`stopping.py`).
    workers = [
        subprocess.Popen(command, env=environment | share, start_new_session=True)
        for share in shares
    ]
    try:
        return sum(worker.wait() != 0 for worker in workers)
    finally:  # stopped by hand: a cell that was not finished is run again next time
        _end(workers)


def _end(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Leaves none behind. They may keep what they are at."""
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + PATIENCE
    for worker in workers:
        try:
            worker.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Names of the GPUs that a process of this environment sees, as CUDA_VISIBLE_DEVICES has
    them."""
    if given := environment.get("CUDA_VISIBLE_DEVICES"):
        return given.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def in_sweep() -> bool:
    """Whether a W&B agent started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


@contextmanager
def sweep_run() -> Iterator[Any]:
    """The agent's run, open while workers do its share of the matrix."""
    import wandb

    with wandb.init() as run:
        yield run
