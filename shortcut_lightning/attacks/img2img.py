"""A short, differentiable image-to-image run: SDEdit (arXiv 2108.01073) by DDIM steps."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone, Conditioning


def guided(model: Backbone, prompts: list[str], negative: str = "") -> Conditioning:
    """The prompts' conditioning, then as many rows of the negative prompt's."""
    with torch.no_grad():
        return model.embed(prompts + [negative] * len(prompts))


def edit(
    model: Backbone,
    latents: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    *,
    strength: float,
    steps: int,
    guidance_scale: float,
) -> Tensor:
    """(B, C, h, w) -> the same: noises to the share `strength` of the published schedule and takes
    `steps` DDIM steps (arXiv 2010.02502, eq. 12, eta = 0) back, with classifier-free guidance.
    `conditioning` is from `guided`. Gradients flow through all of it."""
    count = len(latents)
    first = max(0, round(strength * model.num_train_timesteps) - 1)
    published = torch.linspace(first, 0, steps + 1).round().long()[:-1]
    times = torch.tensor([model.path.translated(time) for time in published.tolist()])
    now = times[0].expand(count).to(latents.device)
    noisy = model.add_noise(latents, noise, now)
    for index, time in enumerate(times.tolist()):
        now = torch.full((2 * count,), time, device=latents.device)
        both = model.predict(torch.cat([noisy, noisy]), now, conditioning)
        wanted, unwanted = both.chunk(2)
        prediction = unwanted + guidance_scale * (wanted - unwanted)
        origin, found = model.origin_and_noise(noisy, prediction, now[:count])
        if index + 1 == len(times):
            return origin
        signal, sigma = model.signal_and_sigma(times[index + 1 : index + 2].to(latents.device))
        noisy = signal * origin + sigma * found
    return noisy
