"""AdvDM (arXiv 2302.04578): climb the pretrained model's own loss; nothing is trained."""

import torch
from torch import Tensor

from shortcut_lightning.attacks.denoising import eps_loss
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.pgd import random_start, sign_pgd
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.ranges import Budget, Count, StepSize


class AdvDM(GradientAttack):
    """Steps up the denoising error of each image, or down it (AdvDM(-), arXiv 2311.12832), with new
    noise and a new timestep at each.

    Takes what `GradientAttack` takes, and:

    Args:
        ascending: Up the loss; false steps down.
        start_randomly: Begin at a random point of the ball instead of at the image.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 1.0,
        steps: Count = 100,
        ascending: bool = True,
        start_randomly: bool = True,
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        self.ascending = ascending
        self.start_randomly = start_randomly

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        with torch.no_grad():
            conditioning = model.embed(prompts)
        start = random_start(images, self.epsilon, generator) if self.start_randomly else images
        return sign_pgd(
            images,
            lambda changed: eps_loss(model, changed, conditioning, generator),
            epsilon=self.epsilon,
            step_sizes=[self.step_size] * self.steps,
            ascending=self.ascending,
            start=start,
            generator=generator,
            title="AdvDM",
            progress=self.progress,
        )
