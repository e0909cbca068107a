"""Gaussian blur."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Positive


class Gaussian(Purifier):
    """Blurs with a Gaussian of standard deviation `sigma` pixels; edges are continued.

    Pillow's `GaussianBlur(radius)` has sigma = radius, and so has the 5 called "kernel size" in
    published scripts.
    """

    differentiable = True

    def __init__(self, sigma: Positive = 5.0) -> None:
        self.sigma = sigma

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        radius = math.ceil(4 * self.sigma)
        offsets = torch.arange(-radius, radius + 1, device=images.device)
        kernel = torch.exp(-(offsets**2) / (2 * self.sigma**2))
        kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
        padded = functional.pad(images, [radius] * 4, mode="replicate")
        rows = functional.conv2d(padded, kernel, groups=3)
        return functional.conv2d(rows, kernel.mT, groups=3)
