"""Not all photographs alike: only some are protected, some are seen more often."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch

from shortcut_lightning import draws
from shortcut_lightning.batch import Example


def chosen(count: int, share: float, seed: int) -> list[int]:
    """Which of `count` photographs are protected, in their order: the nearest whole number of them,
    by the seed. What a smaller share chooses, a larger one chooses too, so that two runs differ by
    the share alone."""
    order = torch.randperm(count, generator=draws.generator(seed, "attack share", 0)).tolist()
    return sorted(order[: int(share * count + 0.5)])


def changed(
    examples: list[Example], which: Sequence[int], change: Callable[[list[Example]], list[Example]]
) -> list[Example]:
    """The examples with some of them changed. An attack that works on the whole set sees those
    alone: their owner protects what he publishes."""
    if not which:
        return examples
    after = dict(zip(which, change([examples[index] for index in which]), strict=True))
    return [after.get(index, each) for index, each in enumerate(examples)]


def check_repeats(names: Sequence[str], repeats: Mapping[str, int]) -> None:
    """Raises ValueError for a key of `training.picture_repeats` that fits no name of a picture."""
    for pattern in repeats:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise ValueError(
                f"data.training.picture_repeats: no picture is '{pattern}'; there are {known}."
            )


def rows(names: Sequence[str], repeats: Mapping[str, int]) -> list[int]:
    """The pictures of one pass: the number of each, as often as `repeats` says, whose keys are
    names of files, or patterns such as `close-up-*.jpg`; the last that fits counts."""
    said = list(repeats.items())[::-1]
    counts = [next((n for key, n in said if fnmatchcase(name, key)), 1) for name in names]
    return [index for index, count in enumerate(counts) for _ in range(count)]
