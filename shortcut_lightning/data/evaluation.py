"""What is sampled: prompts times images per prompt, split over the ranks.

Lightning's loops run each rank's own batches; a rank without any is an error there and a rank with
fewer would leave the others waiting in a collective. So all ranks get the same number of batches,
their sizes as equal as can be. Only where there are fewer images than batches is an image repeated,
under the same id, for whoever gathers to drop.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Generic, TypeVar

import torch

from shortcut_lightning.batch import PromptBatch
from shortcut_lightning.files.reading import read_text
from shortcut_lightning.prompts import Prompts
from shortcut_lightning.safe_guidance import SafeGuidance

T = TypeVar("T")


class Batches(Generic[T]):
    """Ready-made batches as a loader. Not a `DataLoader`: Lightning would split it again."""

    def __init__(self, batches: Sequence[T]) -> None:
        self.batches = list(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[T]:
        return iter(self.batches)


def split(count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """This rank's share of 0..count-1 as batches of at most `batch_size`; see above."""
    number = ceil(ceil(count / world_size) / batch_size)
    start, stop = (count * r // world_size for r in (rank, rank + 1))
    edges = [start + (stop - start) * i // number for i in range(number + 1)]
    chunks = [list(range(a, b)) for a, b in pairwise(edges)]
    return [chunk or [min(start, count - 1)] for chunk in chunks]


def read_prompts(path: str) -> list[str]:
    """The lines of a text file, blank ones left out; none for no file."""
    if not path:
        return []
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"No file of prompts at '{path}' (data.evaluation.predict_prompts_file).")
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def prompt_batches(
    texts: Sequence[str],
    per_prompt: int,
    prompts: Prompts,
    *,
    negatives: Mapping[str, str] = {},
    safety: SafeGuidance | None = None,
    size: tuple[int, int] | None = None,
    first_seed: int,
    batch_size: int,
    arms: Sequence[str] = ("tuned",),
    rank: int = 0,
    world_size: int = 1,
) -> list[PromptBatch]:
    """`per_prompt` images of each text, arm after arm. Image i has id i and seed `first_seed` + i
    in every arm, so that arms can be compared image by image. `negatives` names the arms with a
    negative prompt of their own, `safety` says how it is avoided; `size` is that of the images."""
    wanted = [text for text in texts for _ in range(per_prompt)]
    return [
        PromptBatch(
            prompts=[prompts.sampling(wanted[i], arm) for i in ids],
            negative_prompts=[negatives.get(arm, prompts.negative(arm=arm))] * len(ids),
            seeds=torch.tensor([first_seed + i for i in ids]),
            ids=torch.tensor(ids),
            arm=arm,
            texts=[wanted[i] for i in ids],
            safety=safety,
            size=size,
        )
        for arm in arms
        for ids in split(len(wanted), batch_size, rank, world_size)
    ]
