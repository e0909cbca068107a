"""Which example a position of the stream meets, where a batch holds pictures of one bucket.

Each bucket has a stream of its own, pass after pass over its pictures. Over as many batches as
there are pictures, each bucket comes as often as it has pictures, in an order of its own, so that
all pictures are seen alike. Both follow from the number of the batch alone: neither the number of
processes, as long as they share a batch of the same size, nor an interruption changes the row.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache

from shortcut_lightning.data.stream import shuffled


class BucketOrder:
    """Position of the stream -> (number of the bucket, place in the bucket's own stream).

    Args:
        buckets: Of each picture of one pass, by any name; they are numbered as they come.
        batch: Examples in a batch of all processes together.
        seed: Of the run.
    """

    def __init__(self, buckets: Sequence[Hashable], batch: int, seed: int) -> None:
        names = list(dict.fromkeys(buckets))
        self.members = [[i for i, each in enumerate(buckets) if each == name] for name in names]
        self.batch, self.seed = batch, seed
        self._numbers = tuple(names.index(each) for each in buckets)

    def __call__(self, position: int) -> tuple[int, int]:
        batch, place = divmod(position, self.batch)
        number, turn = divmod(batch, len(self._numbers))
        bucket, before = _turns(self._numbers, self.seed, number)[turn]
        before += number * len(self.members[bucket])
        return bucket, before * self.batch + place


@lru_cache(maxsize=8)
def _turns(numbers: tuple[int, ...], seed: int, cycle: int) -> list[tuple[int, int]]:
    """For each batch of a cycle its bucket, and how often that came before in the cycle."""
    length, seen, turns = len(numbers), Counter[int](), []
    for turn in range(cycle * length, (cycle + 1) * length):
        bucket = numbers[shuffled(turn, length, seed, "bucket order")]
        turns.append((bucket, seen[bucket]))
        seen[bucket] += 1
    return turns
