"""SDEdit (arXiv 2108.01073): drown the picture in noise part of the way, and let a diffusion model
find its way back. With an unconditional pixel model it is DiffPure (arXiv 2205.07460)."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.diffusion import regenerated, space_of, timestep_of
from shortcut_lightning.purifiers.families import lent
from shortcut_lightning.purifiers.resampling import resized, shrunk
from shortcut_lightning.purifiers.windows import summed
from shortcut_lightning.ranges import CountOrNone, NotNegative, Share, SomeShare


class SDEdit(Purifier):
    """Noises to `strength` of the schedule and denoises.

    Published forms: a latent one at 0.301 with guidance 7.5 and words of quality, the same without
    a prompt, and DiffPure at 0.1 with `pixel_model`. Image-to-image by a model that the attack was
    not made on (arXiv 2602.22197) is `backbone` at 0.05 to 0.15.

    Args:
        strength: Share of Stable Diffusion's noise schedule, above 0 and at most 1; on another
            schedule the walk begins at the same ratio of signal to noise.
        steps: Denoiser evaluations; 0 for one at every timestep.
        prompt: What the model is told, `{caption}` standing for the image's own; empty for nothing.
        guidance_scale: Classifier-free guidance; 1 is none.
        eta: 1 walks with noise as DDPM does, 0 without as DDIM does.
        pixel_model: Folder or hub id of an unconditional diffusers DDPM to use instead of the
            run's own model; it knows no prompt. Larger pictures are averaged from windows of its
            size that overlap by half.
        backbone: A model of another family to use instead: `pocket`, `pocket-flow`, a diffusers
            folder or a hub id; `other` is the built-in family that is not of the run's kind, which
            knows pictures of 64 px. Empty for the run's own model.
        negative_prompt: What guidance leads away from.
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
        backbone: str = "",
        negative_prompt: str = "",
    ) -> None:
        if pixel_model and backbone:
            raise ValueError(
                f"data.purifiers.pixel_model is '{pixel_model}' and data.purifiers.backbone "
                f"'{backbone}'; give one of them."
            )
        self.strength = strength
        self.steps = steps
        self.prompt = prompt
        self.guidance_scale = guidance_scale
        self.eta = eta
        self.pixel_model = pixel_model
        self.backbone = backbone
        self.negative_prompt = negative_prompt

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        size = (images.shape[-2], images.shape[-1])
        if self.backbone:
            backbone = lent(self.backbone, backbone, images.device)
            images = shrunk(images, 1, 2 * backbone.downsampling)  # transformers pair latents
        space = space_of(
            self.pixel_model,
            images,
            backbone,
            prompts,
            self.prompt,
            self.guidance_scale,
            self.negative_prompt,
        )
        start = timestep_of(self.strength, space)

        def walked(part: Tensor) -> Tensor:
            data = space.enter(part)
            return space.leave(
                regenerated(space, data, start, generator, self.steps, self.eta, "SDEdit")
            )

        total, count = summed(images, space.side or max(images.shape[-2:]), walked)
        return resized(total / count, size)
