"""At which size a detector looks: at the photograph, not at its thumbnail.

A model learns from pictures of 64 or 512 pixels, and a watermark on a photograph of 24 megapixels
cannot be read there. So a picture that no stage has changed is looked at in its file, at its own
size up to a bound, and the boxes follow it through resize and crop. A picture that an attack, a
pasted mark or a purifier has changed is looked at as it is learned: only that shows what is left.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.geometry import XYXY, cropped
from shortcut_lightning.files.images import shrunk


def photographs(examples: Sequence[Example], detector: Detector) -> list[Path | None]:
    """For each example the file to look at; None for those that are looked at as they are."""
    if detector.looks_up_names or not detector.any_size:
        return [None] * len(examples)
    return [example.photograph for example in examples]


def boxes_of(
    name: str,
    photograph: Tensor,
    learned: Sequence[int],
    detector: Detector,
    side: int,
    device: torch.device,
) -> list[ConceptBox]:
    """What is found in a photograph, in the coordinates of the picture that is learned.

    Args:
        name: The picture's.
        photograph: (3, H, W) in [0, 1], at its own size.
        learned: Height and width of what is learned of it.
        detector: Who looks.
        side: The longer side in pixels that it is shrunk to where it is larger.
        device: Where the detector works.
    """
    image = shrunk(photograph, side)
    (found,) = detector.detect(image[None].to(device), [name])
    return cropped(found, window(image.shape[-2:], learned))


def window(whole: Sequence[int], learned: Sequence[int]) -> XYXY:
    """The part of a picture (height, width) that is left where it was resized to cover (height,
    width) and its middle cropped; all of it where the shapes agree."""
    scale = max(part / length for part, length in zip(learned, whole, strict=True))
    shares = [
        min(1.0, part / (length * scale)) for part, length in zip(learned, whole, strict=True)
    ]
    high, wide = (1.0 if share > 0.98 else share for share in shares)  # rounding of a resize
    return (0.5 - wide / 2, 0.5 - high / 2, 0.5 + wide / 2, 0.5 + high / 2)
