"""Shards and tables for tests, and a detector that workers can unpickle."""

import ctypes
import io
import json
import tarfile
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.cluster.sources import Part, Row
from shortcut_lightning.cluster.stream import Job
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.files.images import load_image

CRASHES, RAISES = "crash", "raise"


class Bright(Detector):
    """Says how bright a picture is; ends its process, or raises, at pictures of telling names."""

    def run(self, images: Tensor, names: Sequence[str]) -> list[list[ConceptBox]]:
        if any(CRASHES in name for name in names):
            ctypes.string_at(0)
        if any(RAISES in name for name in names):
            raise RuntimeError("out of luck")
        return [[ConceptBox("bright", float(each.mean()), None)] for each in images]


class Measure(Job):
    """Some numbers about pictures of one shape together, slowly."""

    batch_size = 3

    def prepare(self, row: Row) -> Tensor:
        return load_image(Path(row.name), row.data)

    def alike(self, prepared: Tensor) -> Hashable:
        return prepared.shape

    def do(self, part: Part, rows: Sequence[Row], prepared: Sequence[Tensor]) -> list[Any]:
        time.sleep(0.3)
        levels = torch.stack(list(prepared)).flatten(1)
        numbers = (levels @ levels.T).softmax(1) @ levels[:, :4]
        return [
            {"part": part.label, "row": row.number, "name": row.name, "numbers": found}
            for row, found in zip(rows, numbers.tolist(), strict=True)
        ]


def encoded(seed: int, size: tuple[int, int] = (32, 32)) -> bytes:
    """A PNG of noise."""
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def write_shard(path: Path, pictures: dict[str, bytes]) -> None:
    """A tar as WebDataset has them: a picture, a caption and facts for each key."""
    with tarfile.open(path, "w") as archive:
        for key, data in pictures.items():
            facts = json.dumps({"key": key}).encode()
            for suffix, what in (("png", data), ("txt", f"a {key}".encode()), ("json", facts)):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(what)
                archive.addfile(member, io.BytesIO(what))


def write_shards(folder: Path, count: int, each: int, first: int = 0) -> Path:
    """`count` shards of `each` pictures, of two shapes; `first` is the number of the first."""
    folder.mkdir()
    for shard in range(count):
        numbers = range(first + shard * each, first + (shard + 1) * each)
        sizes = [(32, 32), (32, 40)]
        write_shard(
            folder / f"shard-{shard:03d}.tar",
            {f"{number:05d}": encoded(number, sizes[number % 2]) for number in numbers},
        )
    return folder
