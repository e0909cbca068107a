"""Positions, shares and orders: python -m pytest tests/data/test_stream.py"""

from collections import Counter
from itertools import islice

import pytest
import torch
from torch.utils.data import Dataset

from shortcut_lightning.data.stream import StreamLoader, StreamSampler, shuffled


class Positions(Dataset[int]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, position: int) -> int:
        return position


def epochs(count: int, batches: int, batch_size: int, rank: int = 0, world: int = 1) -> list[int]:
    """What one rank is given over some epochs, as Lightning asks for it."""
    trained, seen = 0, []
    sampler = StreamSampler(Positions(), batches, batch_size, lambda: trained, rank, world)
    for _ in range(count):
        seen += list(sampler)
        trained += batches
    return seen


def test_one_process_sees_every_position_in_order() -> None:
    assert epochs(3, 4, 2) == list(range(24))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_see_what_one_process_sees(world: int) -> None:
    shares = [epochs(2, 3, 2, rank, world) for rank in range(world)]
    alone = epochs(2, 3, 2 * world)
    for batch in range(6):
        together = [row for share in shares for row in share[2 * batch : 2 * batch + 2]]
        assert together == alone[2 * world * batch : 2 * world * (batch + 1)]


def test_starts_where_training_stands() -> None:
    sampler = StreamSampler(Positions(), 4, 2, lambda: 7, rank=1, world_size=2)
    assert list(islice(sampler, 4)) == [30, 31, 34, 35]
    assert len(sampler) == len(list(sampler)) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_serves_the_stream(workers: int) -> None:
    dataset = Positions()
    sampler = StreamSampler(dataset, 3, 2, lambda: 1)
    loader = StreamLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers)
    assert torch.cat(list(loader)).tolist() == [2, 3, 4, 5, 6, 7]
    assert len(loader) == 3


def test_each_pass_meets_every_item_once_in_its_own_order() -> None:
    met = [shuffled(position, 7, 0, "order") for position in range(70)]
    passes = [tuple(met[start : start + 7]) for start in range(0, 70, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len(set(passes)) > 5
    assert [shuffled(position, 7, 0, "order") for position in (69, 3)] == [met[69], met[3]]


def test_seed_and_stage_change_the_order() -> None:
    def order(seed: int, stage: str) -> tuple[int, ...]:
        return tuple(shuffled(position, 50, seed, stage) for position in range(50))

    assert len({order(0, "a"), order(1, "a"), order(0, "b")}) == 3


def test_first_places_are_shared_fairly() -> None:
    counts = Counter(shuffled(4 * number, 4, 0, "order") for number in range(2000))
    assert min(counts.values()) > 420
