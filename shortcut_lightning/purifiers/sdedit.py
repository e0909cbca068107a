"""SDEdit (arXiv 2108.01073): drown the picture in noise part of the way, and let a diffusion model
find its way back. With an unconditional pixel model it is DiffPure (arXiv 2205.07460)."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.diffusion import regenerated, space_of, timestep_of
from shortcut_lightning.purifiers.windows import summed
from shortcut_lightning.ranges import CountOrNone, NotNegative, Share, SomeShare


class SDEdit(Purifier):
    """Noises to `strength` of the schedule and denoises.

    Published forms: a latent one at 0.301 with guidance 7.5 and words of quality, the same without
    a prompt, and DiffPure at 0.1 with `pixel_model`.

    Args:
        strength: Share of the noise schedule, above 0 and at most 1.
        steps: Denoiser evaluations; 0 for one at every timestep.
        prompt: What the model is told, `{caption}` standing for the image's own; empty for nothing.
        guidance_scale: Classifier-free guidance; 1 is none.
        eta: 1 walks with noise as DDPM does, 0 without as DDIM does.
        pixel_model: Folder or hub id of an unconditional diffusers DDPM to use instead of the
            run's own model; it knows no prompt. Larger pictures are averaged from windows of its
            size that overlap by half.
    """

    random = True
    differentiable = True

    def __init__(
        self,
        strength: SomeShare = 0.3,
        steps: CountOrNone = 0,
        prompt: str = "{caption}, clear, high resolution, high quality, noise-free",
        guidance_scale: NotNegative = 7.5,
        eta: Share = 1.0,
        pixel_model: str = "",
    ) -> None:
        self.strength = strength
        self.steps = steps
        self.prompt = prompt
        self.guidance_scale = guidance_scale
        self.eta = eta
        self.pixel_model = pixel_model

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        space = space_of(
            self.pixel_model, images, backbone, prompts, self.prompt, self.guidance_scale
        )
        start = timestep_of(self.strength, space)

        def walked(part: Tensor) -> Tensor:
            data = space.enter(part)
            return space.leave(
                regenerated(space, data, start, generator, self.steps, self.eta, "SDEdit")
            )

        total, count = summed(images, space.side or max(images.shape[-2:]), walked)
        return total / count
