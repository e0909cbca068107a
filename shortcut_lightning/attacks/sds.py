"""SDS and SDST of Diff-Protect (arXiv 2311.12832): score distillation instead of a UNet backward.

The gradient of the denoising error is taken with the denoiser's own Jacobian left out, as in
DreamFusion (arXiv 2209.14988, eq. 3): only the encoder is differentiated, which takes little
memory.
"""

import torch
from torch import Tensor

from shortcut_lightning.attacks import pictures
from shortcut_lightning.attacks.denoising import denoise_latents
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.pgd import sign_pgd
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.ranges import Budget, Count, NotNegative, StepSize


class SDS(GradientAttack):
    """Steps along sign(J^T (eps_theta(z_t, t) - eps)), J the encoder's Jacobian: up, SDS(+), or
    down, SDS(-), which its authors recommend. With a `texture_rate` it is SDST: the distance to the
    latents of a pattern is descended along with it.

    Takes what `GradientAttack` takes, and:

    Args:
        ascending: SDS(+); false is SDS(-).
        texture_rate: Weight of the score beside the distance to the pattern, published as 5; 0
            leaves the distance out.
        target: Image file of the pattern; empty for a built-in one.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 1.0,
        steps: Count = 100,
        ascending: bool = False,
        texture_rate: NotNegative = 0.0,
        target: str = "",
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        pictures.check(target)
        self.ascending = ascending
        self.texture_rate = texture_rate
        self.target = target

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        with torch.no_grad():
            conditioning = model.embed(prompts)
            goal = model.encode(pictures.target(self.target, images))
        direction = 1 if self.ascending else -1

        def climbed(changed: Tensor) -> Tensor:
            """A scalar whose gradient is the direction above."""
            posterior = model.encode(changed)
            noise = torch.randn(posterior.mean.shape, generator=generator)
            latents = posterior.sample(noise.to(changed.device))
            with torch.no_grad():
                made = denoise_latents(model, latents.detach(), conditioning, generator)
                _, found = model.origin_and_noise(made.noisy, made.prediction, made.timesteps)
            score = direction * ((found - made.noise) * latents).sum()
            if self.texture_rate == 0:
                return score
            again = torch.randn(goal.mean.shape, generator=generator).to(changed.device)
            distance = (latents - goal.sample(again)).square().sum()
            return self.texture_rate * score - distance

        return sign_pgd(
            images,
            climbed,
            epsilon=self.epsilon,
            step_sizes=[self.step_size] * self.steps,
            ascending=True,
            generator=generator,
            title="SDST" if self.texture_rate else "SDS",
            progress=self.progress,
        )
