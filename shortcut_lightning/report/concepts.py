"""The report's sections about concepts: found in training, and found in what was generated."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.report.boxes import colours, outlined
from shortcut_lightning.report.page import Section, fill
from shortcut_lightning.report.pictures import data_uri

MOST = 24  # pictures in a section


def found_in_training(
    examples: Sequence[Example], boxes: Sequence[Sequence[ConceptBox]]
) -> Section:
    """What the run's detector found, image by image; those with a concept first."""
    colour = colours(box.label for image in boxes for box in image)
    order = sorted(range(len(examples)), key=lambda i: not boxes[i])
    pictures = [
        (
            f"{examples[i].name}: {_counted(boxes[i])}",
            outlined(examples[i].image, boxes[i], colour),
        )
        for i in order[:MOST]
    ]
    lead = f"{sum(map(bool, boxes))} of {len(boxes)} images show {_listed(colour)}."
    return section("Concepts found in training images", lead, pictures)


def section(
    title: str,
    lead: str,
    pictures: Sequence[tuple[str, Image.Image]],
    heat: Tensor | None = None,
) -> Section:
    """Pictures with captions, beside a (G, G) map of shares in [0, 1] where there is one."""
    shown = [(caption, data_uri(as_tensor(picture))) for caption, picture in pictures]
    rows = heat.tolist() if heat is not None else []
    return Section(title, fill("concepts.html", heat=rows, pictures=shown), lead)


def as_tensor(picture: Image.Image) -> Tensor:
    """A picture as (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


def _counted(boxes: Sequence[ConceptBox]) -> str:
    return _listed(sorted({box.label for box in boxes})) if boxes else "nothing"


def _listed(labels: Sequence[str] | dict[str, str]) -> str:
    return ", ".join(labels)
