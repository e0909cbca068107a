"""A worse detector made from a good one, to learn how good a detector must be."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.geometry import XYXY, overlap
from shortcut_lightning.ranges import Between, Seed, Share


class DisturbedDetector(Detector):
    """Another detector's boxes, moved and resized, some of them lost. What happens to an image
    depends on the seed and its pixels alone.

    Args:
        detector: The good one.
        overlap: Intersection over union of each box with its original, reached to 0.03.
        missed: Share of images whose boxes are lost.
        invented: Share of images without a box that get one, of the label `label`.
        label: See `invented`.
        seed: Fixes the disturbance.
    """

    def __init__(
        self,
        detector: Detector,
        overlap: Annotated[float, Between(0.1, 1)] = 1.0,
        missed: Share = 0.0,
        invented: Share = 0.0,
        label: str = "",
        seed: Seed = 0,
    ) -> None:
        if invented and not label:
            raise ValueError("data.detector.invented needs data.detector.label for its boxes.")
        self.detector = detector
        self.looks_up_names = detector.looks_up_names
        self.any_size = detector.any_size
        self.overlap = overlap
        self.missed = missed
        self.invented = invented
        self.label = label
        self.seed = seed

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        found = self.detector.detect(images, names)
        return [self._disturbed(image, boxes) for image, boxes in zip(images, found, strict=True)]

    def _disturbed(self, image: Tensor, boxes: list[ConceptBox]) -> list[ConceptBox]:
        number = int((image.double().cpu().sum() * 1e6).round()) & 0x7FFFFFFF
        chance = draws.generator(self.seed, "disturbed", number)
        fate = float(torch.rand((), generator=chance))
        if not boxes:
            place = (*(torch.rand(2, generator=chance) * 0.6).tolist(),)
            box = (place[0], place[1], place[0] + 0.4, place[1] + 0.4)
            return [ConceptBox(self.label, 1.0, box)] if fate < self.invented else []
        if fate < self.missed:
            return []
        return [
            box._replace(xyxy=moved(box.xyxy, self.overlap, chance)) if box.xyxy else box
            for box in boxes
        ]


def moved(box: XYXY, wanted: float, chance: torch.Generator) -> XYXY:
    """A box inside the image whose overlap with the given one is as wanted, or nearest to it."""
    if wanted == 1:
        return box
    width, height = box[2] - box[0], box[3] - box[1]
    best = box
    for _ in range(20):
        direction = torch.randn(4, generator=chance).tolist()
        low, high = 0.0, 2.0
        for _ in range(20):  # the overlap falls with the length of the step
            middle = (low + high) / 2
            x = sorted(
                (box[0] + middle * direction[0] * width, box[2] + middle * direction[1] * width)
            )
            y = sorted(
                (box[1] + middle * direction[2] * height, box[3] + middle * direction[3] * height)
            )
            x0, x1 = (min(max(value, 0.0), 1.0) for value in x)
            y0, y1 = (min(max(value, 0.0), 1.0) for value in y)
            tried = (x0, y0, x1, y1)
            reached = overlap(box, tried) if x0 < x1 and y0 < y1 else 0.0
            if reached > 0 and abs(reached - wanted) < abs(overlap(box, best) - wanted):
                best = tried
            low, high = (middle, high) if reached > wanted else (low, middle)
        if abs(overlap(box, best) - wanted) < 0.03:
            return best
    return best
