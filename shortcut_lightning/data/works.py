"""What a worker does to a part of a folder: look at it, or change it. The functions are the public
ones, `Detector.detect` and the calls of attacks and purifiers."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.attacks.progress import Progress
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.cluster import Work
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.data import looking
from shortcut_lightning.files.images import load_image
from shortcut_lightning.freezing import on_device
from shortcut_lightning.purifiers.base import Purifier


class Stack(NamedTuple):
    """Pictures of one shape, (N, 3, H, W) float32 in [0, 1], with their N names."""

    images: Tensor
    names: list[str]


class Photograph(NamedTuple):
    """A file that is looked at in its own size, and the (height, width) of what is learned of
    it."""

    path: Path
    name: str
    learned: tuple[int, int]


@dataclass
class Looking(Work):
    """Where a detector sees concepts in a `Stack` or a `Photograph`: a list of boxes for each
    picture.

    Args:
        detector: Who looks.
        side: The longer side in pixels that a photograph is shrunk to where it is larger.
    """

    detector: Detector
    side: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """See `Work`."""
        self.device = device
        return nullcontext()

    def __call__(self, part: Stack | Photograph) -> list[list[ConceptBox]]:
        """See `Work`."""
        if isinstance(part, Stack):
            return self.detector.detect(part.images.to(self.device), part.names)
        photograph = load_image(part.path)
        return [
            looking.boxes_of(
                part.name, photograph, part.learned, self.detector, self.side, self.device
            )
        ]


class Pictures(NamedTuple):
    """Some pictures of a stage, (N, 3, H, W), with their N captions and their number in the stage,
    which seeds what is random."""

    number: int
    images: Tensor
    prompts: list[str]


@dataclass
class Changing(Work):
    """Pictures as an attack or a purifier leaves them, (N, 3, H, W) uint8.

    Args:
        change: The attack or purifier.
        backbone: The model it borrows.
        seed: Of the run.
        stage: Names what is random.
        progress: Folder where attacks that are under way note how far they are; None for nowhere.
    """

    change: Attack | Purifier
    backbone: Backbone
    seed: int
    stage: str
    progress: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """See `Work`."""
        self.device = device
        return on_device(self.backbone, device)

    def __call__(self, part: Pictures) -> Tensor:
        """See `Work`."""
        stack = part.images.to(self.device)
        chance = draws.generator(self.seed, self.stage, part.number)
        if isinstance(self.change, Attack):
            progress = Progress(self.progress and self.progress / str(part.number))
            changed = self.change(
                stack, self.backbone, part.prompts, generator=chance, progress=progress
            )
        else:
            changed = self.change(stack, self.backbone, part.prompts, generator=chance)
        return (changed * 255).round().to(torch.uint8).cpu()
