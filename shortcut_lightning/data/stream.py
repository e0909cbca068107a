"""The stream of training examples: an endless row of numbered positions, cut into batches.

Position p of the stream fixes the image, its crop and flip, and (through `TrainBatch.draws`) its
noise. A batch is a run of neighbouring positions, split evenly over the ranks. So a run depends
neither on the number of processes nor on where it was interrupted: whoever knows how many batches
were trained on knows what comes next.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import ceil
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from shortcut_lightning import draws


@lru_cache(maxsize=64)
def _order(length: int, seed: int, stage: str, number: int) -> list[int]:
    return torch.randperm(length, generator=draws.generator(seed, stage, number)).tolist()


def shuffled(position: int, length: int, seed: int, stage: str) -> int:
    """The item of `length` items that a position meets: pass after pass over all of them, each in
    an order of its own, drawn from (seed, stage, number of the pass)."""
    number, place = divmod(position, length)
    return _order(length, seed, stage, number)[place]


class StreamSampler(DistributedSampler[Any]):
    """Yields the positions of one rank, epoch by epoch, starting where training stands.

    An epoch is `batches` batches. `trained` tells how many batches the run has trained on, all
    epochs together; it is asked when an epoch begins. A resumed epoch may be offered more batches
    than it has left: Lightning counts and stops where the epoch ends, and asks anew.

    A `DistributedSampler`, because Lightning leaves those alone.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: int,
        batch_size: int,
        trained: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)
        self.batches = batches
        self.batch_size = batch_size
        self.trained = trained

    def __iter__(self) -> Iterator[int]:
        first = self.trained()
        for batch in range(first, first + self.batches):
            start = (batch * self.num_replicas + self.rank) * self.batch_size
            yield from range(start, start + self.batch_size)

    def __len__(self) -> int:
        return self.batches * self.batch_size


class StreamLoader(DataLoader[Any]):
    """A `DataLoader` that Lightning knows to be resumable. Its state is Lightning's own count of
    batches, which `StreamSampler` asks for, so there is nothing to save."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing; see the class."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing; see the class."""


def stream_loader(
    dataset: Any,
    trainer: Trainer,
    collate: Callable[[list[Any]], Any],
    *,
    batch_size: int,
    repeats: int,
    num_workers: int,
) -> StreamLoader:
    """Batches of this rank from where training stands; an epoch is `repeats` passes."""
    progress, world_size = trainer.fit_loop.epoch_loop.batch_progress, trainer.world_size
    sampler = StreamSampler(
        dataset,
        batches=ceil(len(dataset) * repeats / (batch_size * world_size)),
        batch_size=batch_size,
        # Not `ready`: a checkpoint written while a batch is worked on counts it as ready.
        trained=lambda: progress.total.processed,  # type: ignore[attr-defined]
        rank=trainer.global_rank,
        world_size=world_size,
    )
    return StreamLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=trainer.strategy.root_device.type == "cuda",
    )
