"""The two built-in families by their names, and a few pictures of the world that they know."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortcut_lightning.files.images import save_image
from shortcut_lightning.pocket import BUILT_IN, world

# What is not named `pocket` runs with -m slow.
FAMILIES = [
    pytest.param(name, marks=[pytest.mark.slow] if name != "pocket" else []) for name in BUILT_IN
]


def pictures(count: int, seed: int = 5) -> tuple[Tensor, list[str]]:
    """(N, 3, 64, 64) in [0, 1] with their N captions."""
    drawn = [world.draw(seed, number) for number in range(count)]
    images = torch.stack([torch.from_numpy(each.image).permute(2, 0, 1) / 255 for each in drawn])
    return images, [each.caption for each in drawn]


def write_pictures(images: Tensor, folder: Path) -> Path:
    """As 0.png, 1.png and so on."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        save_image(image, folder / f"{number}.png")
    return folder
