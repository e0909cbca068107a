"""Glaze (arXiv 2302.04222): towards the latents of the image in another style, hardly visible.

Glaze itself is closed; this follows the re-implementation published with IMPRESS (arXiv
2310.19248).
"""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.img2img import edit, guided
from shortcut_lightning.attacks.pgd import Watch, project, random_start
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.metrics.perceptual import lpips
from shortcut_lightning.ranges import (
    Budget,
    Count,
    Levels,
    NotNegative,
    SamplingSteps,
    SomeShare,
    StepSize,
)


class Glaze(GradientAttack):
    """Adam minimises the mean squared distance of latents to those of the image repainted in a
    style, plus `alpha` times what a perceptual distance exceeds `perceptual_budget` by. Latents are
    the autoencoder's own, before they are scaled for the denoiser. Published without an L-infinity
    ball: `epsilon: 255` has none.

    Takes what `GradientAttack` takes, and:

    Args:
        step_size: Adam's learning rate in /255; published as 0.001 of images in [-1, 1].
        start_radius: Begin at uniform noise of this size in /255; published as 0.05 in [-1, 1].
        perceptual: `lpips` as published, with torchmetrics, torchvision and its weights; `dssim` is
            (1 - SSIM) / 2, which the authors' earlier work used (Fawkes, arXiv 2002.08327).
        perceptual_budget: What the perceptual distance may be for nothing; published as 0.05 of
            LPIPS. Other attacks at an LPIPS of 0.06 to 0.07 have an SSIM of about 0.96 in
            DiffAdvPerturbationBench, which is a DSSIM of 0.02.
        alpha: Weight of what is beyond; published as 30, and as 50 in a copy.
        style_prompt: The style.
        strength: Share of the noise schedule the repainting starts at.
        num_inference_steps: Its denoising steps; published as 50 of diffusers, which counts those
            of the whole schedule and at strength 0.4 takes 20.
        guidance_scale: Its classifier-free guidance.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 0.1275,
        steps: Count = 500,
        start_radius: Annotated[float, Levels(0, 255)] = 6.375,
        perceptual: Literal["dssim", "lpips"] = "dssim",
        perceptual_budget: NotNegative = 0.02,
        alpha: NotNegative = 30.0,
        style_prompt: str = "Cubism by Picasso style",
        strength: SomeShare = 0.4,
        num_inference_steps: SamplingSteps = 20,
        guidance_scale: NotNegative = 7.5,
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        self.start_radius = start_radius
        self.perceptual = perceptual
        self.perceptual_budget = perceptual_budget
        self.alpha = alpha
        self.style_prompt = style_prompt
        self.strength = strength
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        different: Callable[[Tensor, Tensor], Tensor] = dssim
        if self.perceptual == "lpips":
            different = lpips("vgg", images.device, "data.attack.perceptual 'lpips'")
        with torch.no_grad():
            goal = model.encode(self.repainted(images, model, generator))

        def drawn() -> Tensor:
            return torch.randn(goal.mean.shape, generator=generator).to(images.device)

        held = nn.ParameterList([random_start(images, self.start_radius, generator)])
        changed = held[0]
        adam = torch.optim.Adam([changed], lr=self.step_size / 255)
        with Watch("Glaze", self.steps) as watch:
            for _ in self.progress.loop(self.steps, generator, held, adam, watch):
                distances = (model.encode(changed).sample(drawn()) - goal.sample(drawn())).square()
                # Variances are small differences of large numbers: nothing for bfloat16.
                with torch.autocast(images.device.type, enabled=False):
                    beyond = (different(changed, images) - self.perceptual_budget).clamp(min=0)
                # A sum over images: each is as if it were alone.
                far = distances.mean(dim=(1, 2, 3)) / model.latent_scale**2
                loss = (far + self.alpha * beyond).sum()
                (changed.grad,) = torch.autograd.grad(loss, changed)
                adam.step()
                watch.see(loss, changed.grad)
                with torch.no_grad():
                    changed.copy_(project(changed, images, self.epsilon))
        return changed.detach()

    def repainted(self, images: Tensor, model: Backbone, generator: torch.Generator) -> Tensor:
        """The images in the style, (N, 3, H, W) in [0, 1]."""
        latents = model.encode(images).mean
        return model.decode(
            edit(
                model,
                latents,
                guided(model, [self.style_prompt] * len(images)),
                torch.randn(latents.shape, generator=generator).to(images.device),
                strength=self.strength,
                steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
            )
        )


def dssim(changed: Tensor, clean: Tensor) -> Tensor:
    """(N,) structural dissimilarity, 0 for equal images; differentiable."""
    similarity = structural_similarity_index_measure(
        changed, clean, data_range=1.0, reduction="none"
    )
    return (1 - torch.as_tensor(similarity)) / 2
