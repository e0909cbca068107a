"""Photographs in, photographs out: what the verbs `protect` and `purify` do, for other programs.

A model works at its own resolution, photographs are larger. So each is shrunk until its shorter
side is the model's, keeping its shape, and changed there. A protected copy is the photograph in
full resolution plus the enlarged change, cut to the budget; a purified copy is the purified picture
enlarged, because the photograph's own fine detail is what is not wanted.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from shortcut_lightning import draws
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.doors import check_pictures, check_words
from shortcut_lightning.files.images import load_image, read_picture, round_to_8_bits
from shortcut_lightning.freezing import on_device
from shortcut_lightning.purifiers.base import Purifier

Picture = Path | str | Image.Image | Tensor


class Photographs:
    """Pictures of any sizes in front of a model that works at its own.

    Args:
        pictures: Files, PIL images, which are read as files are, or tensors (3, H, W) float32 in
            [0, 1].
        captions: What they show, one for each, or one for all.
        backbone: The model that is protected against, or that purifiers may borrow.
        side: Shorter side in pixels at which they are changed; 0 for the model's own.

    Raises:
        ValueError: no pictures, a file that is no picture, a PIL image of an unknown depth or under
            8 pixels, a tensor of another form, or other than one caption for each.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        captions: Sequence[str] | str,
        backbone: Backbone,
        side: int = 0,
    ) -> None:
        if not pictures:
            raise ValueError("Photographs got no pictures; give at least one.")
        if side < 0:
            raise ValueError(f"side is {side}; it must be 0, for the model's own, or more.")
        words = [captions] * len(pictures) if isinstance(captions, str) else list(captions)
        check_words(words, len(pictures), "Photographs", "captions")
        self.full = [_opened(each) for each in pictures]
        self.captions, self.backbone = words, backbone
        self.small = [for_model(each, backbone, side or backbone.resolution) for each in self.full]

    def protected(self, attack: Attack, *, seed: int = 0, batch_size: int = 4) -> list[Tensor]:
        """Copies in full size, each (3, H, W) in 8-bit steps, within the attack's `epsilon`/255.

        Attacks that train on the whole set see all pictures of one shape together, others at most
        `batch_size`. The same pictures and seed give what `protect` writes."""
        size = len(self.full) if attack.whole_set else batch_size
        changed = self._changed(attack, self.small, "perturb", seed, size)
        return [
            protected_copy(photograph, after - before, attack.epsilon)
            for photograph, before, after in zip(self.full, self.small, changed, strict=True)
        ]

    def purified(
        self, purifiers: Sequence[Purifier], *, seed: int = 0, batch_size: int = 4
    ) -> list[Tensor]:
        """Copies in full size, each (3, H, W) in 8-bit steps, cleaned by one purifier after the
        other. The same pictures and seed give what `purify` writes."""
        pictures = self.small
        for number, purifier in enumerate(purifiers):
            stage = f"purify-{number}"
            pictures = self._changed(purifier, pictures, stage, seed, batch_size)
        return [
            purified_copy(photograph, after)
            for photograph, after in zip(self.full, pictures, strict=True)
        ]

    def _changed(
        self, change: Attack | Purifier, pictures: list[Tensor], stage: str, seed: int, size: int
    ) -> list[Tensor]:
        """What a stage makes of the pictures, numbered and seeded as `data/stages.py` does."""
        groups = by_shape(pictures)
        parts = [g[i : i + size] for g in groups for i in range(0, len(g), size)]
        device = self.backbone.device
        made: dict[int, Tensor] = {}
        with on_device(self.backbone, device):
            for number, part in enumerate(parts):
                stack = torch.stack([pictures[index] for index in part]).to(device)
                prompts = [self.captions[index] for index in part]
                chance = draws.generator(seed, stage, number)
                after = change(stack, self.backbone, prompts, generator=chance).cpu()
                made |= dict(zip(part, round_to_8_bits(after), strict=True))
        return [made[index] for index in range(len(pictures))]


def by_shape(images: Sequence[Tensor]) -> list[list[int]]:
    """Indices of images of equal shape, groups in order of their first image."""
    groups: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    return list(groups.values())


def protected_copy(photograph: Tensor, change: Tensor, epsilon: float) -> Tensor:
    """The photograph (3, H, W) plus a change of another size, at most `epsilon`/255."""
    budget = math.floor(epsilon + 1e-6) / 255
    return round_to_8_bits(photograph + enlarged(change, photograph).clamp(-budget, budget))


def purified_copy(photograph: Tensor, purified: Tensor) -> Tensor:
    """A purified picture in the photograph's size."""
    return round_to_8_bits(enlarged(purified, photograph))


def for_model(image: Tensor, backbone: Backbone, side: int) -> Tensor:
    """Shrunk to what a model takes."""
    return shrunk(image, side, backbone.multiple, backbone.longest)


def shrunk(image: Tensor, side: int, multiple: int, longest: int = 0) -> Tensor:
    """Shorter side at `side` pixels at most, the longer one at `longest` (0 for any), both sides
    multiples of `multiple`, 8-bit rounded."""
    height, width = image.shape[-2:]
    scale = min(1.0, side / min(height, width), (longest or math.inf) / max(height, width))
    size = [
        max(multiple, round(length * scale / multiple) * multiple) for length in (height, width)
    ]
    if size == [height, width]:
        return image
    smaller = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return round_to_8_bits(smaller)


def enlarged(image: Tensor, like: Tensor) -> Tensor:
    """(3, h, w) in the size of `like`; cubic, so values may leave the range."""
    if image.shape == like.shape:
        return image
    return functional.interpolate(image[None], like.shape[-2:], mode="bicubic", antialias=True)[0]


def _opened(picture: Picture) -> Tensor:
    """(3, H, W) float32 in [0, 1], 8-bit rounded."""
    if isinstance(picture, str | Path):
        return load_image(Path(picture).expanduser())
    if isinstance(picture, Image.Image):
        try:
            return read_picture(picture, "A PIL image")
        except ValueError as error:
            raise ValueError(f"Photographs: a PIL image {error}.") from error
    check_pictures(picture[None] if isinstance(picture, Tensor) else picture, "Photographs")
    return round_to_8_bits(picture)
