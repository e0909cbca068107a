"""Noise of the same radius as an attack: the control that says what the attack itself adds."""

import torch
from torch import Tensor

from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.ranges import Budget


class RandomNoise(Attack):
    """Adds independent noise to every value.

    Args:
        epsilon: Budget in /255.
        sign: Plus or minus `epsilon` with equal chance, the largest noise the budget allows;
            otherwise uniform between them.
    """

    def __init__(self, epsilon: Budget = 11.0, sign: bool = False) -> None:
        super().__init__(epsilon)
        self.sign = sign

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Attack`."""
        noise = 2 * torch.rand(images.shape, generator=generator).to(images.device) - 1
        if self.sign:
            noise = noise.sign()
        return images + noise * self.epsilon / 255
