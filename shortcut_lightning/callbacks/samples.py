"""The images of one evaluation: collected batch by batch, gathered over ranks, saved once."""

import json
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from shortcut_lightning.batch import PromptBatch
from shortcut_lightning.files.atomic import write_text
from shortcut_lightning.files.images import write_png
from shortcut_lightning.report.pictures import to_pil

T = TypeVar("T")


class Sample(NamedTuple):
    """One generated image with what made it."""

    arm: str
    id: int
    prompt: str  # before a method added to it
    negative_prompt: str
    seed: int
    pixels: Tensor  # (3, H, W) uint8 on the CPU
    asked: str  # the prompt as the model was given it


@dataclass(frozen=True)
class Samples:
    """All images of one arm in order of their id, as every metric sees them."""

    arm: str  # "tuned" or "base"
    images: Tensor  # (N, 3, H, W) float32 in [0, 1] on the CPU, rounded to 8 bits as when saved
    prompts: list[str]  # before a method added to them: the same in all arms
    negative_prompts: list[str]
    seeds: list[int]
    ids: list[int]
    device: torch.device  # where encoders may work
    asked: list[str] = field(default_factory=list)  # as given to the model; empty for `prompts`

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, ids: Container[int]) -> "Samples":
        """Those of the given ids alone."""
        rows = [row for row, number in enumerate(self.ids) if number in ids]

        def some(values: list[T]) -> list[T]:
            return [values[row] for row in rows] if values else []

        return replace(
            self,
            images=self.images[rows],
            prompts=some(self.prompts),
            negative_prompts=some(self.negative_prompts),
            seeds=some(self.seeds),
            ids=some(self.ids),
            asked=some(self.asked),
        )


def from_batch(batch: PromptBatch, images: Tensor) -> list[Sample]:
    """One entry per image of a batch, (B, 3, H, W) in [0, 1], rounded to 8 bits.

    Raises:
        ValueError: the step returned another number of images than the batch has prompts.
    """
    if len(images) != len(batch.prompts):
        raise ValueError(
            f"the module returned {len(images)} images for {len(batch.prompts)} prompts; "
            "test_step and predict_step return one image per prompt of the PromptBatch"
        )
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().cpu()
    rows = zip(
        batch.ids.tolist(),
        batch.texts or batch.prompts,
        batch.negative_prompts,
        batch.seeds.tolist(),
        pixels,
        batch.prompts,
        strict=True,
    )
    return [Sample(batch.arm, *row) for row in rows]


def merge(collected: Iterable[Sample], device: torch.device) -> dict[str, Samples]:
    """Samples of all ranks -> one `Samples` per arm, in order of id.

    An image made twice, because a distributed sampler repeats some to even out the ranks, counts
    once.
    """
    arms: dict[str, dict[int, Sample]] = {}
    for sample in collected:
        arms.setdefault(sample.arm, {}).setdefault(sample.id, sample)
    merged = {}
    for arm, by_id in arms.items():
        ordered = [by_id[number] for number in sorted(by_id)]
        merged[arm] = Samples(
            arm=arm,
            images=torch.stack([sample.pixels for sample in ordered]).float() / 255,
            prompts=[sample.prompt for sample in ordered],
            negative_prompts=[sample.negative_prompt for sample in ordered],
            seeds=[sample.seed for sample in ordered],
            ids=[sample.id for sample in ordered],
            device=device,
            asked=[sample.asked for sample in ordered],
        )
    return merged


def gather(own: list[Sample], world_size: int) -> list[Sample]:
    """The samples of all ranks, on every rank. Every rank must call it."""
    if world_size == 1:
        return own
    shards: list[list[Sample]] = [[] for _ in range(world_size)]
    torch.distributed.all_gather_object(shards, own)
    return [sample for shard in shards for sample in shard]


def file_name(number: int) -> str:
    """The file of the image with this id."""
    return f"{number:05d}.png"


def save(samples: Samples, folder: Path) -> None:
    """Writes each image as PNG, and `metadata.jsonl` with `file_name`, `text` and what made it.

    The folder can be read back as a folder of images with captions. Images that an earlier
    evaluation left there are removed first, so that the folder holds one evaluation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):
        old.unlink()
    for number, image in zip(samples.ids, samples.images, strict=True):
        write_png(to_pil(image), folder / file_name(number))
    asked = samples.asked or samples.prompts
    rows = zip(samples.ids, asked, samples.negative_prompts, samples.seeds, strict=True)
    write_metadata(folder, rows)


def write_metadata(folder: Path, rows: Iterable[tuple[int, str, str, int]]) -> None:
    """Writes `metadata.jsonl` from rows of (id, prompt, negative prompt, seed)."""
    lines = [
        json.dumps(
            {"file_name": file_name(i), "text": prompt, "negative_prompt": negative, "seed": seed}
        )
        for i, prompt, negative, seed in rows
    ]
    write_text(folder / "metadata.jsonl", "\n".join([*lines, ""]))
