"""FLUX.2 klein, 4B and 9B, base and distilled, and every model in the same folder layout.

The transformer reads three inner layers of a language model side by side (Qwen3 with its chat
template). The autoencoder's latents are normalised by its own batch statistics, four of them (2 x
2) at a time, and packed so; outside this file they are (B, C, h, w) like all others.

A distilled one (`is_distilled` in its model_index.json) has no guidance at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import Flux2KleinPipeline
from torch import Tensor

from shortcut_lightning.backbones import lora
from shortcut_lightning.backbones.base import Conditioning, Posterior, in_its_dtype
from shortcut_lightning.backbones.flow import FlowTransformer


class Flux2Klein(FlowTransformer):
    """Latent rectified flow with a language model as its text encoder."""

    pipeline_class = Flux2KleinPipeline
    steerable = False  # its pipeline asks the transformer for one prompt at a time
    usual_guidance = 4.0
    thinking = False

    def __init__(self, pipeline: Flux2KleinPipeline) -> None:
        super().__init__(pipeline)
        self.is_distilled = bool(pipeline.config.is_distilled)
        self.pipeline_options = {"is_distilled": self.is_distilled}

    @classmethod
    def lora_settings_for(cls, denoiser: Any) -> Mapping[str, Any]:
        """Most of the transformer are single-stream blocks, whose attention has one projection in
        and one out."""
        blocks = range(len(denoiser.single_transformer_blocks))
        single = [f"single_transformer_blocks.{number}.attn.to_out" for number in blocks]
        targets = [*lora.JOINT["target_modules"], "to_qkv_mlp_proj", *single]
        return {**lora.JOINT, "target_modules": targets}

    @property
    def distilled(self) -> str:
        if not self.is_distilled:
            return ""
        return (
            "this FLUX.2 klein is distilled to a few steps, and what is trained on it comes out "
            "grey: train FLUX.2-klein-base, and use the adapter on this one"
        )

    @property
    def remarks(self) -> Sequence[str]:
        if not self.is_distilled:
            return ()
        return [
            "The model is distilled to a few steps without guidance: its prediction for the empty "
            "prompt, CLiD's unconditional branch, was distilled away, and negative prompts, also "
            "those of decoupling and location words, do nothing at sampling."
        ]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each of the 4 C channels of packed latents."""
        batch_norm, epsilon = self.vae.bn, self.vae.config.batch_norm_eps
        mean, variance = (
            each.view(1, -1, 1, 1).to(like)
            for each in (batch_norm.running_mean, batch_norm.running_var)
        )
        return mean, (variance + epsilon).sqrt()

    def encode(self, images: Tensor) -> Posterior:
        raw = super().encode(images)
        stock = self.pipeline_class
        _, deviation = self._statistics(raw.mean)
        spread = stock._patchify_latents(raw.std) / deviation
        return Posterior(self._normalised(raw.mean), stock._unpatchify_latents(spread))

    def decode(self, latents: Tensor) -> Tensor:
        stock = self.pipeline_class
        mean, deviation = self._statistics(latents)
        packed = stock._patchify_latents(latents) * deviation + mean
        return super().decode(stock._unpatchify_latents(packed))

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        with self.using(self.text_encoder):
            hidden, _ = self.pipeline().encode_prompt(
                list(prompts), device=self.device, max_sequence_length=self.max_sequence_length
            )
        return Conditioning(hidden.float())

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        stock = self.pipeline_class
        packed = stock._patchify_latents(noisy.contiguous())
        places = stock._prepare_latent_ids(packed).to(noisy.device)
        with in_its_dtype(self.denoiser, self.device):
            output = self.denoiser(
                hidden_states=stock._pack_latents(packed),
                timestep=self.sigmas[timesteps],
                encoder_hidden_states=conditioning.hidden,
                txt_ids=stock._prepare_text_ids(conditioning.hidden).to(noisy.device),
                img_ids=places,
                return_dict=False,
            )[0]
        sides = packed.shape[-2:]
        found = stock._unpack_latents_with_ids(output.float(), places, *sides)
        unpacked: Tensor = stock._unpatchify_latents(found)
        return unpacked

    def noise_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (1, 4 * self.vae.config.latent_channels, height // 2, width // 2)

    def from_pipeline(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """The stock pipeline gives back the autoencoder's own latents."""
        return self._normalised(latents)

    def _normalised(self, latents: Tensor) -> Tensor:
        stock = self.pipeline_class
        mean, deviation = self._statistics(latents)
        found: Tensor = stock._unpatchify_latents(
            (stock._patchify_latents(latents) - mean) / deviation
        )
        return found

    def stock_guidance(self, guidance_scale: float) -> float:
        """The pipeline of a distilled one has none, and says so at each call that asks for it."""
        return 1.0 if self.is_distilled else guidance_scale

    def prompt_arguments(
        self, prompts: Sequence[str], negative_prompts: Sequence[str]
    ) -> dict[str, Any]:
        if self.is_distilled and any(negative_prompts):
            self.say_once(
                "Negative prompts do nothing on this distilled model: it has no guidance."
            )
        return super().prompt_arguments(prompts, negative_prompts)
