"""Random noise on top: it drowns a perturbation that was made for these exact pixels."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier


class GaussianNoise(Purifier):
    """Adds Gaussian noise of standard deviation `sigma` to images in [0, 1] (arXiv 2406.12027).

    Alone it is "Gaussian noising" with 0.05; with 0.1 it is the first step of noisy upscaling.
    """

    random = True
    differentiable = True

    def __init__(self, sigma: float = 0.05) -> None:
        if sigma <= 0:
            raise ValueError(f"GaussianNoise's sigma is {sigma}; it must be above 0 (of [0, 1]).")
        self.sigma = sigma

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + self.sigma * noise).clamp(0, 1)
