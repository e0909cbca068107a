"""Denoised smoothing at the step that fits the budget (arXiv 2206.10550), called DDSPure where it
purifies protected photographs."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.diffusion import regenerated, space_of
from shortcut_lightning.purifiers.resampling import resized
from shortcut_lightning.ranges import Budget, Count


class OptimalStep(Purifier):
    """Noises to the timestep whose noise is as strong as the perturbation may be, and denoises.

    That is the t with abar_t nearest 1 / (1 + sigma^2), for sigma = 2 epsilon / 255 of data in
    [-1, 1]. In latents the same t is taken, though a perturbation may be stronger there.

    Args:
        epsilon: Budget of the perturbation in /255, as far as it is known.
        iterations: How often.
        pixel_model: Folder or hub id of an unconditional diffusers DDPM; empty for the run's own
            model, without a prompt. Pictures are brought to squares of its size, and back.
    """

    random = True
    differentiable = True

    def __init__(
        self, epsilon: Budget = 11.0, iterations: Count = 1, pixel_model: str = ""
    ) -> None:
        self.epsilon = epsilon
        self.iterations = iterations
        self.pixel_model = pixel_model

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        space = space_of(self.pixel_model, images, backbone, prompts)
        start = optimal_timestep(space.path.published, 2 * self.epsilon / 255)
        size = (images.shape[-2], images.shape[-1])
        if space.side:
            images = resized(images, (space.side, space.side))
        for _ in range(self.iterations):
            data = regenerated(space, space.enter(images), start, generator)
            images = space.leave(data).clamp(0, 1)
        return resized(images, size)


def optimal_timestep(alphas: Tensor, sigma: float) -> int:
    """Index of the alpha nearest 1 / (1 + sigma^2), counted from 0 (papers count from 1)."""
    return int((alphas.double() - 1 / (1 + sigma**2)).abs().argmin())
