"""What a generator of concepts is: picture in, picture with the concept and its boxes out."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.geometry import XYXY
from shortcut_lightning.concepts.pixels import to_rgb, to_tensor
from shortcut_lightning.ranges import Ranged

VISIBLE = 12  # of 255; what is fainter, as the soft rim of a letter, is not part of a box


class Contaminated(NamedTuple):
    """A picture with a concept in it."""

    image: Tensor  # (3, H, W) float32 in [0, 1], 8-bit rounded
    boxes: list[ConceptBox]  # tight around what was drawn, score 1


class ConceptGenerator(Ranged, ABC):
    """Draws one kind of concept. Lengths are shares of the picture, so any size will do."""

    label: str
    share: float  # of the pictures of a set that get the concept

    def __call__(self, image: Tensor, seed: int, index: int) -> Contaminated:
        """(3, H, W) in [0, 1] -> the picture with the concept. (seed, index) fix all about it."""
        rng = self.random(seed, index)
        picture, boxes = self.draw(Image.fromarray(to_rgb(image)), rng)
        found = [ConceptBox(self.label, 1.0, box) for box in boxes]
        return Contaminated(to_tensor(np.asarray(picture)), found)

    def chosen(self, seed: int, index: int) -> bool:
        """Whether picture `index` of a set is one of the `share` that get the concept."""
        return bool(self.random(seed, index, 1).random() < self.share)

    @abstractmethod
    def draw(
        self, picture: Image.Image, rng: np.random.Generator
    ) -> tuple[Image.Image, list[XYXY]]:
        """An RGB picture -> a new one with the concept, and its boxes in [0, 1]."""

    def random(self, *key: int) -> np.random.Generator:
        """Random numbers of this generator for a tuple of whole numbers from 0 up."""
        name = sum(ord(letter) << (8 * (i % 4)) for i, letter in enumerate(type(self).__name__))
        return np.random.default_rng(np.random.SeedSequence([name, *key]))


def check_order(name: str, given: tuple[float, float]) -> None:
    """Raises ValueError unless given[0] <= given[1]."""
    if not given[0] <= given[1]:
        raise ValueError(f"{name} is {list(given)}; give the smaller number first.")


def font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font, so that no font file is needed, with letters of `size` pixels."""
    loaded = ImageFont.load_default(max(size, 4.0))
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded


def laid_over(picture: Image.Image, layer: Image.Image) -> Image.Image:
    """An RGBA layer over an RGB picture of its size."""
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def lettered(
    text: str,
    size: float,
    ink: tuple[int, int, int, int],
    stroke: int = 0,
    outline: tuple[int, int, int, int] | None = None,
) -> Image.Image:
    """The text as an RGBA picture without margins, letters of `size` pixels, `stroke` thicker."""
    letters = font(size)
    box = letters.getbbox(text, stroke_width=stroke)
    margin = 2  # Pillow places letters at fractions of a pixel
    width, height = (round(box[i + 2] - box[i]) + 2 * margin for i in (0, 1))
    picture = Image.new("RGBA", (max(width, 1), max(height, 1)))
    ImageDraw.Draw(picture).text(
        (margin - box[0], margin - box[1]),
        text,
        fill=ink,
        font=letters,
        stroke_width=stroke,
        stroke_fill=outline or ink,
    )
    return picture.crop(picture.getchannel("A").getbbox() or (0, 0, 1, 1))


def extent(layer: Image.Image) -> XYXY | None:
    """The box in [0, 1] around what an RGBA layer visibly draws; None where it draws nothing."""
    box = layer.getchannel("A").point(lambda alpha: 255 * (alpha >= VISIBLE)).getbbox()
    if box is None:
        return None
    width, height = layer.size
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height
