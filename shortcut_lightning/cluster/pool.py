"""Parts of a piece of work, done here or by workers; the results are the same."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any, Literal, Protocol

import torch

from shortcut_lightning.ranges import Between

EngineName = Literal["local", "ray"]
GpuShare = Annotated[float, Between(0, note="GPUs of each worker; 0 works on the CPU")]
INSTALL = "pip install 'shortcut-lightning[cluster]'"


class Work(ABC):
    """What is done to each part, with the models that it takes. It is pickled once and unpickled by
    every worker, so it holds no open files and no sessions."""

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """Inside, parts can be done on `device`; a worker stays inside until it ends."""
        return nullcontext()

    @abstractmethod
    def __call__(self, part: Any) -> Any:
        """Does one part. The result depends on the part alone and can be pickled; a part may be
        done again after a worker was lost."""


class Pool(Protocol):
    """Who does the parts."""

    def map(
        self, work: Work, parts: Iterable[Any], device: torch.device
    ) -> Iterator[tuple[int, Any]]:
        """The number of each part, counted from 0, with its result, in any order. `device` is this
        process's. Raises what the work raises."""


class InProcess:
    """Does every part here, one after the other."""

    def map(
        self, work: Work, parts: Iterable[Any], device: torch.device
    ) -> Iterator[tuple[int, Any]]:
        """See `Pool`; in the order of the parts."""
        with work.ready(device):
            for number, part in enumerate(parts):
                yield number, work(part)


@contextmanager
def open_pool(
    engine: EngineName = "local", workers: int = 1, gpus_per_worker: float = 0.0
) -> Iterator[Pool]:
    """The pool that the options of a verb ask for, closed at the end.

    Raises ValueError for workers without an engine that has any, and where Ray is not installed or
    has not what is asked for.
    """
    if engine == "local":
        if workers != 1 or gpus_per_worker:
            given = f"--workers {workers}" if workers != 1 else "--gpus_per_worker"
            raise ValueError(
                f"{given} needs --engine ray; the engine 'local' is this process and its device "
                f"(Ray comes with {INSTALL})."
            )
        yield InProcess()
        return
    from shortcut_lightning.cluster.ray_pool import RayPool, connected

    with connected(workers, gpus_per_worker):
        yield RayPool(workers, gpus_per_worker)
