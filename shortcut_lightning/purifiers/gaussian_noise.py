"""Random noise on top: it drowns a perturbation that was made for these exact pixels."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Positive


class GaussianNoise(Purifier):
    """Adds Gaussian noise of standard deviation `sigma` to images in [0, 1] (arXiv 2406.12027).

    Alone it is "Gaussian noising" with 0.05; with 0.1 it is the first step of noisy upscaling.
    """

    random = True
    differentiable = True

    def __init__(self, sigma: Positive = 0.05) -> None:
        self.sigma = sigma

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + self.sigma * noise).clamp(0, 1)
