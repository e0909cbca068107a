"""Qwen-Image, and every model in the same folder layout.

The transformer reads the last states of a vision-language model (Qwen2.5-VL) for a fixed system
prompt, whose own first tokens are cut off. The autoencoder is one of films: a picture is a film of
one frame, its latents are normalised channel by channel, and packed, 2 x 2 to a token. All of that
is inside this file: outside latents are (B, C, h, w) like all others.

Guidance is by two calls, and what comes out is scaled back to the length of the first one's answer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import Tensor
from torch.nn.functional import pad

from shortcut_lightning.backbones.base import Conditioning, Posterior, in_its_dtype
from shortcut_lightning.backbones.flow import FlowTransformer


class QwenImage(FlowTransformer):
    """Latent rectified flow with a vision-language model as its text encoder."""

    pipeline_class = QwenImagePipeline
    steerable = False  # its pipeline asks the transformer for one prompt at a time
    usual_guidance = 4.0

    @staticmethod
    def downsampling_of(vae: Any) -> int:
        return int(2 ** len(vae.config.temperal_downsample))

    def _room(self, tokenizer: Any) -> int:
        """What the end of the template leaves of `max_sequence_length`."""
        stock = self.pipeline()
        template = tokenizer(stock.prompt_template_encode.format("")).input_ids
        return max(
            self.max_sequence_length - len(template) + stock.prompt_template_encode_start_idx, 1
        )

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel."""
        config = self.vae.config
        mean, deviation = (
            torch.tensor(each).view(1, -1, 1, 1).to(like)
            for each in (config.latents_mean, config.latents_std)
        )
        return mean, deviation

    def encode(self, images: Tensor) -> Posterior:
        raw = self.autoencoder("encode", images.unsqueeze(2) * 2 - 1).latent_dist
        mean, deviation = self._statistics(raw.mean.float())
        return Posterior(
            (raw.mean.squeeze(2).float() - mean) / deviation, raw.std.squeeze(2).float() / deviation
        )

    def decode(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics(latents)
        given = (latents * deviation + mean).unsqueeze(2)
        images = self.autoencoder("decode", given).sample[:, :, 0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        length = self.max_sequence_length
        with self.using(self.text_encoder):
            hidden, mask = self.pipeline().encode_prompt(
                list(prompts), device=self.device, max_sequence_length=length
            )
        if mask is None:  # no prompt is shorter than another
            mask = torch.ones(hidden.shape[:2], device=hidden.device)
        # To one length, so that prompts embedded apart can be put together.
        missing = length - hidden.shape[1]
        return Conditioning(
            pad(hidden.float(), (0, 0, 0, missing)), mask=pad(mask.bool(), (0, missing))
        )

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        count, _, height, width = noisy.shape
        with in_its_dtype(self.denoiser, self.device):
            output = self.denoiser(
                hidden_states=self.to_pipeline(noisy),
                timestep=self.sigmas[timesteps],
                encoder_hidden_states=conditioning.hidden,
                encoder_hidden_states_mask=conditioning.mask,
                img_shapes=[[(1, height // 2, width // 2)]] * count,
                return_dict=False,
            )[0]
        return self.from_pipeline(
            output.float(), (height * self.downsampling, width * self.downsampling)
        )

    def noise_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (1, self.denoiser.config.in_channels // 4, height, width)

    def to_pipeline(self, noise: Tensor) -> Tensor:
        packed: Tensor = self.pipeline_class._pack_latents(noise.contiguous(), *noise.shape)
        return packed

    def from_pipeline(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        found: Tensor = self.pipeline_class._unpack_latents(latents, *size, self.downsampling)
        return found.squeeze(2)

    def guidance_arguments(self, guidance_scale: float) -> dict[str, Any]:
        return {"true_cfg_scale": guidance_scale}

    def prompt_arguments(
        self, prompts: Sequence[str], negative_prompts: Sequence[str]
    ) -> dict[str, Any]:
        said, unsaid = self.embed(prompts), self.embed(negative_prompts)
        return {
            "prompt_embeds": said.hidden,
            "prompt_embeds_mask": said.mask,
            "negative_prompt_embeds": unsaid.hidden,
            "negative_prompt_embeds_mask": unsaid.mask,
            "max_sequence_length": self.max_sequence_length,
        }
