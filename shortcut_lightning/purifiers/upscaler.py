"""Diffusion super-resolution: made small, the picture loses the perturbation; the model paints
detail of its own. With noise before it is noisy upscaling (arXiv 2406.12027)."""

from functools import cached_property
from typing import Annotated, Any

import torch
from torch import Tensor

from shortcut_lightning import prompts as words
from shortcut_lightning import weights
from shortcut_lightning.backbones import pipelines
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.resampling import resized, shrunk
from shortcut_lightning.ranges import Between, NotNegative, SamplingSteps, Timestep

_KEY = "data.purifiers.pretrained_model_name_or_path"


class Upscaler(Purifier):
    """Stable Diffusion's x4 upscaler, or another in its folder layout.

    Args:
        pretrained_model_name_or_path: Folder or hub id, such as
            `stabilityai/stable-diffusion-x4-upscaler`.
        prompt: What the model is told, `{caption}` standing for the image's own.
        shrink: Sides are divided by this first; 1 enlarges the picture as it is, which takes a
            large accelerator, and brings it back to its size.
        num_inference_steps: Sampling steps.
        guidance_scale: Classifier-free guidance.
        noise_level: Timestep of the noise the model itself adds to the small picture.
    """

    random = True

    def __init__(
        self,
        pretrained_model_name_or_path: str,
        prompt: str = "A photo of a person",
        shrink: Annotated[float, Between(1)] = 4.0,
        num_inference_steps: SamplingSteps = 75,
        guidance_scale: NotNegative = 9.0,
        noise_level: Timestep = 20,
    ) -> None:
        self.pretrained_model_name_or_path = pretrained_model_name_or_path
        self.prompt = prompt
        self.shrink = shrink
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.noise_level = noise_level

    @cached_property
    def pipeline(self) -> Any:
        """The diffusers pipeline, loaded at first use."""
        from diffusers import StableDiffusionUpscalePipeline

        source = self.pretrained_model_name_or_path
        try:
            pipeline = pipelines.load(StableDiffusionUpscalePipeline, source, _KEY)
        except weights.WeightsError:
            raise
        except (OSError, ValueError) as error:
            why = str(error).strip().splitlines()[0][:120]
            raise ValueError(
                f"Upscaler cannot load '{source}' ({why}); give a folder or a hub id that can be "
                f"reached ({_KEY}), or purify with the run's own model: --data.purifiers "
                "noisy_upscaling_own."
            ) from error
        pipeline.set_progress_bar_config(desc="Upscaler", unit="step")
        return pipeline

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        pipeline = self.pipeline.to(images.device)
        rows = [
            pipeline(
                words.purification(self.prompt, caption),
                image=image[None],
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                noise_level=self.noise_level,
                generator=generator,
                output_type="pt",
            ).images
            for image, caption in zip(self._small(images), prompts, strict=True)
        ]
        enlarged = torch.cat(rows).to(images)
        return resized(enlarged, (images.shape[-2], images.shape[-1]))

    def stand_in(self, images: Tensor) -> Tensor:
        """See `Purifier`: made small and resized back, as if the model painted nothing anew."""
        return resized(self._small(images), (images.shape[-2], images.shape[-1]))

    def _small(self, images: Tensor) -> Tensor:
        # The UNet halves what it is given several times.
        multiple = 2 ** len(self.pipeline.unet.config.block_out_channels)
        return shrunk(images, self.shrink, multiple)
