"""The loss that most protections push: the denoiser's error on an image's latent.

z ~ q(.|x) by reparameterisation, so that the gradient reaches the pixels; eps ~ N(0, 1); t as
training draws it (uniform for Stable Diffusion), one for each image; z_t by the model's schedule;
the mean squared distance of the prediction to what the model predicts: the noise (arXiv 2006.11239,
eq. 14), the velocity (2202.00512, app. D) or the flow (2403.03206).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone, Conditioning


class Denoising(NamedTuple):
    """One noising of a batch and what the model made of it. Shapes (B, C, h, w) but `timesteps`."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor  # (B,) int64
    noisy: Tensor
    prediction: Tensor
    target: Tensor

    @property
    def losses(self) -> Tensor:
        """(B,) float32, one mean squared error per image."""
        return (self.target.float() - self.prediction.float()).square().mean(dim=(1, 2, 3))


def denoise(
    backbone: Backbone,
    images: Tensor,
    conditioning: Conditioning,
    generator: torch.Generator,
    timesteps: Tensor | None = None,
) -> Denoising:
    """(B, 3, H, W) images in [0, 1] -> one noising, gradients flowing to the images.

    Draws from the CPU generator, in the order of published scripts: the posterior's noise, the
    noise, the timesteps (none where `timesteps`, (B,) int64, are given).
    """
    posterior = backbone.encode(images)
    shape, device = posterior.mean.shape, images.device
    latents = posterior.sample(torch.randn(shape, generator=generator).to(device))
    return denoise_latents(backbone, latents, conditioning, generator, timesteps)


def denoise_latents(
    backbone: Backbone,
    latents: Tensor,
    conditioning: Conditioning,
    generator: torch.Generator,
    timesteps: Tensor | None = None,
) -> Denoising:
    """`denoise` from latents that are there already; draws the noise, then the timesteps."""
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    if timesteps is None:
        timesteps = backbone.draw_timesteps(len(latents), generator)
    timesteps = timesteps.to(latents.device)
    noisy = backbone.add_noise(latents, noise, timesteps)
    prediction = backbone.predict(noisy, timesteps, conditioning)
    target = backbone.target(latents, noise, timesteps)
    return Denoising(latents, noise, timesteps, noisy, prediction, target)


def eps_loss(
    backbone: Backbone,
    images: Tensor,
    conditioning: Conditioning,
    generator: torch.Generator,
    timesteps: Tensor | None = None,
) -> Tensor:
    """The scalar mean of `denoise(...).losses`."""
    return denoise(backbone, images, conditioning, generator, timesteps).losses.mean()
