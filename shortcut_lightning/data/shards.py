"""The verbs `detect`, `protect` and `purify` on shards, tables and patterns of files: the same
functions as on a folder, a part at a time, so that memory does not grow with the pictures."""

import io
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.cluster.sinks import Copy
from shortcut_lightning.cluster.sources import Part, Row
from shortcut_lightning.cluster.stream import Job
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.data import loading, looking
from shortcut_lightning.data.buckets import Bucket
from shortcut_lightning.data.copies import SUFFIX, Copies
from shortcut_lightning.files.images import load_image
from shortcut_lightning.freezing import on_device
from shortcut_lightning.photographs import for_model, protected_copy, purified_copy
from shortcut_lightning.prompts import Prompts
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.report.pictures import to_pil

CPU = torch.device("cpu")
_AT_A_TIME = 32  # pictures of one shape that a detector sees at a time


class _Looked(NamedTuple):
    """What a detector sees of a picture, and the (height, width) of what is learned of it."""

    image: Tensor
    learned: tuple[int, int]
    at_own_size: bool


@dataclass
class DetectRows(Job):
    """Boxes of each picture, in the coordinates of what is learned of it.

    Args:
        detector: Who looks.
        resolution: Shorter side of what is learned.
        center_crop: Whether its middle square is.
        side: The longer side in pixels that a photograph is shrunk to where it is larger.
        sizes: The buckets that are learned instead, if any.
    """

    detector: Detector
    resolution: int
    center_crop: bool
    side: int
    sizes: Sequence[Bucket] = ()
    batch_size: int = _AT_A_TIME
    device: torch.device = CPU

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """See `Job`."""
        self.device = device
        return nullcontext()

    def prepare(self, row: Row) -> _Looked:
        """See `Job`."""
        image = load_image(Path(row.name), row.data)
        learned = loading.preparation(self.resolution, self.center_crop, self.sizes)(image)
        larger = min(image.shape[-2:]) > min(learned.shape[-2:])
        own = larger and self.detector.any_size and not self.detector.looks_up_names
        return _Looked(image if own else learned, (learned.shape[-2], learned.shape[-1]), own)

    def alike(self, prepared: _Looked) -> Hashable:
        """See `Job`."""
        return None if prepared.at_own_size else prepared.learned

    def do(
        self, part: Part, rows: Sequence[Row], prepared: Sequence[_Looked]
    ) -> list[dict[str, Any]]:
        """See `Job`."""
        names = [row.name for row in rows]
        if prepared[0].at_own_size:
            image, learned, _ = prepared[0]
            found = [
                looking.boxes_of(names[0], image, learned, self.detector, self.side, self.device)
            ]
        else:
            stack = torch.stack([each.image for each in prepared]).to(self.device)
            found = self.detector.detect(stack, names)
        return [
            {"part": part.label, "row": row.number, "name": row.name, "boxes": _plain(boxes)}
            for row, boxes in zip(rows, found, strict=True)
        ]

    def count(self, results: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Pictures with a box, and pictures by label."""
        counts = {"with a box": float(sum(bool(each["boxes"]) for each in results))}
        for each in results:
            for label in {box["label"] for box in each["boxes"]}:
                counts[label] = counts.get(label, 0.0) + 1
        return counts


def _plain(boxes: Sequence[ConceptBox]) -> list[dict[str, Any]]:
    return [
        {"label": b.label, "score": float(b.score), "xyxy": list(b.xyxy) if b.xyxy else None}
        for b in boxes
    ]


@dataclass
class ChangeRows(Job):
    """Copies of pictures as an attack, or a chain of purifiers, leaves them; see `copies.py`.

    An attack that trains a surrogate on its pictures takes all of a part that have one shape: a
    shard is a subject.

    Args:
        changes: One attack, or purifiers.
        backbone: The model they borrow.
        side: Shorter side at which pictures are changed.
        prompts: Write the captions.
        use_captions: Whether the pictures' own are taken.
        copies: How copies are written.
        batch_size: Pictures that are changed together.
        seed: Of the run.
    """

    changes: Sequence[Attack | Purifier]
    backbone: Backbone
    side: int
    prompts: Prompts
    use_captions: bool
    copies: Copies
    batch_size: int
    seed: int
    device: torch.device = field(default_factory=lambda: CPU)

    def __post_init__(self) -> None:
        if any(isinstance(each, Attack) and each.whole_set for each in self.changes):
            self.batch_size = 0

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """See `Job`."""
        self.device = device
        return on_device(self.backbone, device)

    def prepare(self, row: Row) -> tuple[Tensor, Tensor]:
        """See `Job`: the photograph, and what is changed of it."""
        image = load_image(Path(row.name), row.data)
        return image, for_model(image, self.backbone, self.side)

    def alike(self, prepared: tuple[Tensor, Tensor]) -> Hashable:
        """See `Job`."""
        return prepared[1].shape

    def do(
        self, part: Part, rows: Sequence[Row], prepared: Sequence[tuple[Tensor, Tensor]]
    ) -> list[Copy]:
        """See `Job`."""
        small = torch.stack([each for _, each in prepared]).to(self.device)
        captions = [self.prompts.caption(row.caption if self.use_captions else "") for row in rows]
        changed = small
        for number, change in enumerate(self.changes):
            stage = f"{type(change).__name__}-{number}"
            chance = draws.generator(self.seed, f"{stage} {part.label}", rows[0].number)
            changed = change(changed, self.backbone, captions, generator=chance)
        differences = (changed - small).cpu()
        return [
            self._copy(row, photograph, after, difference)
            for row, (photograph, _), after, difference in zip(
                rows, prepared, changed.cpu(), differences, strict=True
            )
        ]

    def _copy(self, row: Row, photograph: Tensor, after: Tensor, difference: Tensor) -> Copy:
        attack = next((each for each in self.changes if isinstance(each, Attack)), None)
        if attack:
            made = protected_copy(photograph, difference, attack.epsilon)
        else:
            made = purified_copy(photograph, after)
        settings = {"quality": self.copies.quality, "subsampling": 0}
        data = io.BytesIO()
        to_pil(made).save(
            data,
            self.copies.format.upper(),
            **settings if self.copies.format == "jpeg" else {},
        )
        suffix = SUFFIX[self.copies.format]
        place = PurePosixPath(row.name)
        name = f"{row.name}{suffix}" if row.twin else str(place.with_suffix(suffix))
        return Copy(name, data.getvalue(), row.caption)
