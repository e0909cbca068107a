"""Down and up again."""

import torch
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import InnerShare


class Resize(Purifier):
    """Shrinks to `scale` of each side and enlarges back, both bicubic, the first antialiased."""

    differentiable = True

    def __init__(self, scale: InnerShare = 0.5) -> None:
        self.scale = scale

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        size = images.shape[-2:]
        small = [max(1, round(side * self.scale)) for side in size]
        shrunk = functional.interpolate(images, small, mode="bicubic", antialias=True)
        return functional.interpolate(shrunk.clamp(0, 1), size, mode="bicubic")
