"""Mist (arXiv 2305.12683): towards the latents of a pattern, and up the denoising error."""

from typing import Literal

import torch
from torch import Tensor

from shortcut_lightning.attacks import pictures
from shortcut_lightning.attacks.denoising import denoise, eps_loss
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.pgd import random_start, sign_pgd
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.ranges import Budget, Count, NotNegative, StepSize


class Mist(GradientAttack):
    """Minimises ||z - z_target||^2 - rate * (denoising error), z drawn from either posterior
    anew at each step.

    Takes what `GradientAttack` takes, and:

    Args:
        mode: `fused` has both terms, `semantic` the denoising error alone, `textural` the distance.
        rate: Weight of the denoising error in `fused`. The distance is a sum over the latent and
            the error a mean, hence the size.
        target: Image file of the pattern; empty for a built-in one.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 1.0,
        steps: Count = 100,
        mode: Literal["fused", "semantic", "textural"] = "fused",
        rate: NotNegative = 1e4,
        target: str = "",
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        pictures.check(target)
        self.mode = mode
        self.rate = rate
        self.target = target

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        with torch.no_grad():
            conditioning = model.embed(prompts)
            goal = model.encode(pictures.target(self.target, images))

        def drawn(mean: Tensor) -> Tensor:
            return torch.randn(mean.shape, generator=generator).to(mean.device)

        def distance(latents: Tensor) -> Tensor:
            towards = goal.sample(drawn(goal.mean)).detach()
            return (latents - towards).square().sum(dim=(1, 2, 3))

        def loss(changed: Tensor) -> Tensor:
            # Sums over images, so that the balance of the terms does not depend on their number.
            if self.mode == "semantic":
                return -eps_loss(model, changed, conditioning, generator)
            if self.mode == "textural":
                posterior = model.encode(changed)
                return distance(posterior.sample(drawn(posterior.mean))).sum()
            made = denoise(model, changed, conditioning, generator)
            return (distance(made.latents) - self.rate * made.losses).sum()

        return sign_pgd(
            images,
            loss,
            epsilon=self.epsilon,
            step_sizes=[self.step_size] * self.steps,
            ascending=False,
            start=random_start(images, self.epsilon, generator),
            generator=generator,
            title=f"Mist ({self.mode})",
            progress=self.progress,
        )
