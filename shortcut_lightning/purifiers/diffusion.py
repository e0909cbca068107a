"""What purifiers with a diffusion model share: a space to work in, and the walk through its noise.

The space is either the latents of a backbone, which may be the run's own, or the pixels of an
unconditional diffusion model of diffusers (a folder or hub id of a DDPM pipeline), as published
pixel purifiers use.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from shortcut_lightning import prompts as words
from shortcut_lightning.backbones import pixels
from shortcut_lightning.backbones.base import Backbone, Conditioning
from shortcut_lightning.backbones.paths import Path


class Space(ABC):
    """Images as a diffusion model has them, scaled to about unit variance."""

    path: Path  # the noise schedule
    limit: float = float("inf")  # largest absolute value of clean data
    side: int = 0  # of the pictures that the model knows, in pixels; 0 for any

    @abstractmethod
    def enter(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> clean data of the model."""

    @abstractmethod
    def leave(self, data: Tensor) -> Tensor:
        """Clean data -> (N, 3, H, W), about [0, 1]."""

    @abstractmethod
    def noise(self, noisy: Tensor, timestep: int) -> Tensor:
        """The model's estimate of the noise in `noisy`. Timesteps are the published ones."""

    def powers(self, timestep: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """a^2 and b^2 at a published timestep, scalars of the kind of `like`."""
        at = torch.tensor(self.path.translated(timestep), device=self.path.table.device)
        signal, noise = self.path.powers(at)
        return signal.to(like), noise.to(like)


class LatentSpace(Space):
    """Latents of a backbone. With `guidance_scale` 1, or with neither a prompt nor a negative one,
    the denoiser is asked once per step, else twice."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[str],
        guidance_scale: float = 1.0,
        negative_prompt: str = "",
    ) -> None:
        self.backbone = backbone
        self.path = backbone.path
        self.conditioning = backbone.embed(list(prompts))
        self.guidance_scale = guidance_scale
        self.guided = guidance_scale != 1 and any([*prompts, negative_prompt])
        if self.guided:
            against = backbone.embed([negative_prompt] * len(prompts))
            self.conditioning = Conditioning.stack([against, self.conditioning])

    def enter(self, images: Tensor) -> Tensor:
        return self.backbone.encode(images).mean

    def leave(self, data: Tensor) -> Tensor:
        return self.backbone.decode(data)

    def noise(self, noisy: Tensor, timestep: int) -> Tensor:
        given = torch.cat([noisy, noisy]) if self.guided else noisy
        at = self.path.translated(timestep)
        steps = torch.full((len(given),), at, device=noisy.device)
        output = self.backbone.predict(given, steps, self.conditioning)
        if self.guided:
            without, with_prompt = output.chunk(2)
            output = without + self.guidance_scale * (with_prompt - without)
        return self.backbone.origin_and_noise(noisy, output, steps[: len(noisy)])[1]


class PixelSpace(Space):
    """Pixels in [-1, 1] of an unconditional noise-predicting model of diffusers."""

    limit = 1.0

    def __init__(self, source: str, device: torch.device) -> None:
        self.network, self.path = pixels.load(source, "data.purifiers.pixel_model")
        self.network.to(device)
        size = self.network.config.sample_size or 0  # of both sides, or of each
        self.side = size if isinstance(size, int) else min(size)

    def enter(self, images: Tensor) -> Tensor:
        return images * 2 - 1

    def leave(self, data: Tensor) -> Tensor:
        return (data + 1) / 2

    def noise(self, noisy: Tensor, timestep: int) -> Tensor:
        # Some models have three more channels, for the variance.
        return self.network(noisy, timestep).sample[:, : noisy.shape[1]]


def space_of(
    pixel_model: str,
    images: Tensor,
    backbone: Backbone,
    captions: Sequence[str],
    prompt: str = "",
    guidance_scale: float = 1.0,
    negative_prompt: str = "",
) -> Space:
    """The space a purifier was asked for; `prompt` may hold `{caption}`."""
    if pixel_model:
        return PixelSpace(pixel_model, images.device)
    asked = [words.purification(prompt, caption) for caption in captions]
    return LatentSpace(backbone, asked, guidance_scale, negative_prompt)


def timestep_of(strength: float, space: Space) -> int:
    """The last timestep of the given share of the schedule, at least the first."""
    return max(0, round(strength * len(space.path.published)) - 1)


def regenerated(
    space: Space,
    data: Tensor,
    timestep: int,
    generator: torch.Generator,
    steps: int = 0,
    eta: float = 1.0,
    title: str = "",
    change: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Noises clean data to a timestep, then walks back to clean data.

    Args:
        timestep: Where the walk begins.
        steps: Denoiser evaluations, spread evenly; 0 for one at every timestep.
        eta: 1 is DDPM's ancestral step (arXiv 2006.11239, eq. 6 and 7), 0 DDIM's without noise
            (arXiv 2010.02502, eq. 12).
        title: Of a progress bar; empty for none.
        change: What is done to the clean data that each step predicts; its noise stays.
    """

    def gaussian() -> Tensor:
        return torch.randn(data.shape, generator=generator).to(data)

    walk = timesteps(timestep, steps)
    levels = {at: space.powers(at, data) for at in {timestep, *walk}}
    levels[-1] = torch.ones_like(levels[timestep][0]), torch.zeros_like(levels[timestep][1])
    x = levels[timestep][0].sqrt() * data + levels[timestep][1].sqrt() * gaussian()
    pairs = list(pairwise([*walk, -1]))
    for now, then in tqdm(pairs, desc=title, unit="step", disable=not title, mininterval=0.5):
        (a, b), (a_then, b_then) = levels[now], levels[then]  # squared
        noise = space.noise(x, now)
        clean = ((x - b.sqrt() * noise) / a.sqrt()).clamp(-space.limit, space.limit)
        if space.limit < float("inf"):
            noise = (x - a.sqrt() * clean) / b.sqrt()
        if change is not None:
            clean = change(clean)
        variance = eta**2 * b_then / b * space.path.fresh(a, a_then)
        x = a_then.sqrt() * clean + (b_then - variance).clamp(min=0).sqrt() * noise
        if then >= 0 and eta > 0:
            x = x + variance.sqrt() * gaussian()
    return x


def timesteps(first: int, steps: int) -> list[int]:
    """Descending timesteps from `first` to 0, all of them or about `steps`, evenly spread."""
    if steps == 0 or steps > first:
        return list(range(first, -1, -1))
    if steps == 1:
        return [first]
    return [round(first * (1 - i / (steps - 1))) for i in range(steps)]
