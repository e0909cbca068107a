"""FLUX.1 dev and schnell, and every model in the same folder layout.

The transformer reads the states of a T5 and the pooled state of a CLIP. Latents are packed, 2 x 2
to a token, inside this file alone: outside they are (B, C, h, w).

dev is guidance-distilled: one call gives what two calls and their difference gave the model that
it was made from, and how strong that is to be is an input of the network (`guidance_embeds`). In
training and wherever the denoiser is asked it is told `guidance`; `sample` tells it its
`guidance_scale`. A negative prompt needs two calls again, `true_cfg_scale` above 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor, nn

from shortcut_lightning.backbones import flux_kohya, lora
from shortcut_lightning.backbones.base import Conditioning, in_its_dtype
from shortcut_lightning.backbones.flow import FlowTransformer


class Flux(FlowTransformer):
    """Latent rectified flow with a CLIP's pooled state and a T5."""

    pipeline_class = FluxPipeline
    token_keys = ("clip_l", "t5xxl")
    learning_encoders = ("text_encoder",)
    takes_true_cfg = True
    steerable = False  # its pipeline asks the transformer for one prompt at a time
    usual_guidance = 3.5

    def __init__(self, pipeline: FluxPipeline) -> None:
        super().__init__(pipeline)
        self.text_encoder_2: Any = pipeline.text_encoder_2
        self.tokenizer_2: Any = pipeline.tokenizer_2
        self.takes_guidance = bool(self.denoiser.config.guidance_embeds)
        # Pooled at the end of the text: with 2, the legacy of old configs, CLIP would take the
        # highest id, which is a new word's if there is one.
        self.text_encoder.eos_token_id = self.tokenizer.eos_token_id

    @property
    def tokenizers(self) -> dict[str, Any]:
        return super().tokenizers | {"tokenizer_2": self.tokenizer_2}

    @property
    def networks(self) -> dict[str, nn.Module]:
        return super().networks | {"text_encoder_2": self.text_encoder_2}

    @property
    def distilled(self) -> str:
        if self.takes_guidance or self.scheduler.config.use_dynamic_shifting:
            return ""
        return "FLUX.1 schnell is distilled to a few steps, and what is trained on it unlearns them"

    @property
    def remarks(self) -> Sequence[str]:
        acts = f"is {self.true_cfg_scale:g}"
        if self.true_cfg_scale <= 1:
            acts = "is off: they do nothing here"
        acting = (
            "Negative prompts, those of decoupling and of location words among them, act through "
            f"model.sampling.true_cfg_scale alone, which {acts}."
        )
        if not (self.takes_guidance or self.distilled):  # one that was trained out of it
            return [acting]
        how = "guidance" if self.takes_guidance else "a few steps"
        return [
            f"The model is distilled to {how}: its prediction for the empty prompt exists, but was "
            "never meant to be guided from. CLiD's unconditional branch is that prediction. "
            f"{acting}"
        ]

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        stock, texts = self.pipeline(), list(prompts)
        with self.using(self.text_encoder):
            pooled = stock._get_clip_prompt_embeds(texts, device=self.device)
        with self.using(self.text_encoder_2):
            hidden = stock._get_t5_prompt_embeds(
                texts, max_sequence_length=self.max_sequence_length, device=self.device
            )
        return Conditioning(hidden.float(), pooled.float())

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        count, _, height, width = noisy.shape
        stock = self.pipeline_class
        places = stock._prepare_latent_image_ids(
            count, height // 2, width // 2, noisy.device, noisy.dtype
        )
        guidance = None
        if self.takes_guidance:
            guidance = torch.full((count,), self.guidance, device=noisy.device)
        with in_its_dtype(self.denoiser, self.device):
            output = self.denoiser(
                hidden_states=self.to_pipeline(noisy),
                timestep=self.sigmas[timesteps],
                guidance=guidance,
                pooled_projections=conditioning.pooled,
                encoder_hidden_states=conditioning.hidden,
                txt_ids=noisy.new_zeros(conditioning.hidden.shape[1], 3),
                img_ids=places,
                return_dict=False,
            )[0]
        sides = height * self.downsampling, width * self.downsampling
        found: Tensor = stock._unpack_latents(output.float(), *sides, self.downsampling)
        return found

    def noise_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (1, self.vae.config.latent_channels, height, width)

    def to_pipeline(self, noise: Tensor) -> Tensor:
        packed: Tensor = self.pipeline_class._pack_latents(noise.contiguous(), *noise.shape)
        return packed

    def from_pipeline(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        found: Tensor = self.pipeline_class._unpack_latents(latents, *size, self.downsampling)
        return found

    def prompt_arguments(
        self, prompts: Sequence[str], negative_prompts: Sequence[str]
    ) -> dict[str, Any]:
        if self.true_cfg_scale > 1:
            more = {"true_cfg_scale": self.true_cfg_scale}
            return super().prompt_arguments(prompts, negative_prompts) | more
        if any(negative_prompts):
            self.say_once(
                "Negative prompts do nothing on this model: they need a second call, "
                "model.sampling.true_cfg_scale above 1."
            )
        said = self.embed(prompts)
        return {"prompt_embeds": said.hidden, "pooled_prompt_embeds": said.pooled}

    def lora_in_its_names(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        # diffusers' own converter knows a single block of the published width alone.
        found = flux_kohya.split(self.denoiser, tensors)
        return super().lora_in_its_names(tensors) if found is None else found

    def save_lora(self, folder: Path) -> None:
        """In diffusers' keys and in kohya's, but of a DoRA, which sd-scripts do not have here."""
        super().save_lora(folder)
        if not lora.is_dora(self):
            lora.save_kohya(self, folder / "kohya_lora.safetensors")

    def kohya_layers(
        self, part: str, layers: Mapping[str, dict[str, Tensor]]
    ) -> dict[str, dict[str, Tensor]]:
        if part == self.part:
            return flux_kohya.fused(self.denoiser, layers)
        return super().kohya_layers(part, layers)

    def kohya_name(self, part: str, module: str) -> str:
        return f"lora_te1_text_model_{module.replace('.', '_')}"  # a CLIP's, the one that learns
