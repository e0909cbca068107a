"""Down and up again."""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import InnerShare


class Resize(Purifier):
    """Shrinks to `scale` of each side and enlarges back.

    Args:
        scale: Share of each side.
        filter: `bicubic`, antialiased where it shrinks, or `lanczos`, as Pillow has it.
    """

    differentiable = True

    def __init__(
        self, scale: InnerShare = 0.5, filter: Literal["bicubic", "lanczos"] = "bicubic"
    ) -> None:
        self.scale = scale
        self.filter = filter

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        size = images.shape[-2:]
        small = [max(1, round(side * self.scale)) for side in size]
        if self.filter == "lanczos":
            return lanczos(lanczos(images, small).clamp(0, 1), size)
        shrunk = functional.interpolate(images, small, mode="bicubic", antialias=True)
        return functional.interpolate(shrunk.clamp(0, 1), size, mode="bicubic")


def lanczos(images: Tensor, size: list[int] | torch.Size) -> Tensor:
    """(N, C, H, W) -> (N, C, *size), by Pillow's filter, in floating point. Differentiable."""
    down, across = (
        _weights(old, new).to(images) for old, new in zip(images.shape[-2:], size, strict=True)
    )
    return down @ images @ across.T


@lru_cache(maxsize=8)
def _weights(old: int, new: int) -> Tensor:
    """(new, old): how much each pixel of a side adds to each new one. Resampling is linear, so it
    is what Pillow makes of the unit vectors."""
    units = Image.fromarray(np.eye(old, dtype=np.float32))
    return torch.from_numpy(np.array(units.resize((old, new), Image.Resampling.LANCZOS)))
