"""Pairs of perceptual hashes that differ in few bits, among millions, not all compared with all.

The 63 bits are cut into eight chunks; for every choice of some of them a table brings together the
hashes that have those chunks in common (Manku, Jain and Das Sarma 2007). Pairs that differ in no
more bits than there are other chunks are all found, others by luck. What it costs grows as the
number of hashes as long as there are fewer of them than values of a table's key.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

CHUNKS = 8
_MANY = 2**20  # hashes from which three chunks are a key (24 bits) instead of two (16)
_AT_A_TIME = 2**22  # candidates in memory


def packed(bits: np.ndarray) -> np.ndarray:
    """(N,) int64 of (N, 63) signs."""
    places = np.left_shift(np.int64(1), np.arange(63, dtype=np.int64))
    return np.asarray((bits > 0) @ places, dtype=np.int64)


def surely_found(count: int) -> int:
    """Bits up to which no pair is missed, with so many hashes to look among."""
    return CHUNKS - _together(count)


def close_pairs(first: np.ndarray, second: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in two sets of hashes, (N,) and (M,) int64, of pairs that differ in at most `most`
    of the bits: all up to `surely_found` bits, and most of the others; each pair once, in order."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for chosen in combinations(range(CHUNKS), _together(len(second))):
        mask = np.int64(sum(_chunk(number) for number in chosen))
        for i, j in _equal(first & mask, second & mask):
            close = np.bitwise_count(first[i] ^ second[j]) <= most
            found.append(np.stack([i[close], j[close]], 1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _together(count: int) -> int:
    return 3 if count >= _MANY else 2


def _chunk(number: int) -> int:
    """Every eighth bit: neighbouring frequencies are alike, and one chunk should not have them."""
    return sum(1 << place for place in range(number, 63, CHUNKS))


def _equal(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of equal values, some at a time."""
    order = np.argsort(second)
    ordered = second[order]
    low, high = (np.searchsorted(ordered, first, side) for side in ("left", "right"))
    ends = np.cumsum(high - low)
    start = 0
    while start < len(first):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_A_TIME, "right")))
        counts = (high - low)[start:stop]
        own = np.repeat(np.arange(start, stop), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield own, order[np.repeat(low[start:stop], counts) + within]
        start = stop
