"""Stable Diffusion XL (arXiv 2307.01952) and every model in the same folder layout.

Two text encoders speak side by side: the denoiser reads the states before the last layer of both,
the second one's pooled state, and the size of the picture. Pictures count as uncropped and of the
size they are trained at.

The last layer of the first text encoder is never used: to train the text encoders under DDP give
`--trainer.strategy ddp_find_unused_parameters_true`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from shortcut_lightning.backbones import original_names
from shortcut_lightning.backbones.base import Conditioning, in_its_dtype
from shortcut_lightning.backbones.long_prompts import side_by_side
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """Latent diffusion with two CLIP text encoders and micro-conditioning on the size."""

    pipeline_class = StableDiffusionXLPipeline
    pipeline_options: Mapping[str, Any] = {"add_watermarker": False}

    def __init__(self, pipeline: StableDiffusionXLPipeline) -> None:
        super().__init__(pipeline)
        self.text_encoder_2: CLIPTextModelWithProjection = pipeline.text_encoder_2
        self.tokenizer_2: CLIPTokenizer = pipeline.tokenizer_2
        # The published models were trained with zeros where there is no (negative) prompt.
        self.zeros_for_empty = bool(pipeline.config.force_zeros_for_empty_prompt)
        self.pipeline_options = {
            **self.pipeline_options,
            "force_zeros_for_empty_prompt": self.zeros_for_empty,
        }

    @property
    def tokenizers(self) -> dict[str, CLIPTokenizer]:
        return super().tokenizers | {"tokenizer_2": self.tokenizer_2}

    @property
    def networks(self) -> dict[str, nn.Module]:
        return super().networks | {"text_encoder_2": self.text_encoder_2}

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """See `Backbone`. An empty prompt gives zeros (`zeros_for_empty`): dropped prompts and null
        captions must be what the published models were trained and are sampled with."""
        hidden = []
        for tokenizer, text_encoder in self.vocabularies:
            ids = self.token_ids(tokenizer, prompts)
            with self.using(text_encoder):
                states = text_encoder(ids, output_hidden_states=True)
            hidden.append(side_by_side(states.hidden_states[-2].float(), self.prompt_chunks))
        # Pooled at the end of the text. The encoder itself, where its config has the legacy end 2,
        # would take the highest id, which is a new word's if there is one.
        ends = (ids == self.tokenizer_2.eos_token_id).int().argmax(dim=1)
        last = states.last_hidden_state[torch.arange(len(ids), device=ids.device), ends]
        last = last[:: self.prompt_chunks]  # of a prompt's first row, as others have it
        kept = torch.tensor(
            [bool(text) or not self.zeros_for_empty for text in prompts], device=ids.device
        )
        with self.using(self.text_encoder_2):
            pooled = self.text_encoder_2.text_projection(last).float()
        return Conditioning(torch.cat(hidden, dim=-1) * kept[:, None, None], pooled * kept[:, None])

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        height, width = (side * self.downsampling for side in noisy.shape[-2:])
        # original size, top left corner of the crop, size: the pipeline's order
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=noisy.device)
        added = {
            "text_embeds": conditioning.pooled,
            "time_ids": sizes.expand(len(noisy), -1).to(conditioning.hidden.dtype),
        }
        with in_its_dtype(self.unet, self.device):
            return self.unet(
                noisy, timesteps, conditioning.hidden, added_cond_kwargs=added, return_dict=False
            )[0].float()

    def save_token(self, path: Path, token: str, vectors: Sequence[Tensor]) -> None:
        """One word as kohya and A1111 write it, with the token in the metadata."""
        save_file({"clip_l": vectors[0], "clip_g": vectors[1]}, path, {"token": token})

    def kohya_name(self, part: str, module: str) -> str:
        """Kohya keeps the block names of the original code for this model's UNet."""
        if part != self.part:
            number = 2 if part == "text_encoder_2" else 1
            return f"lora_te{number}_text_model_{module.replace('.', '_')}"
        per_block = self.unet.config.layers_per_block + 1  # and a down- or upsampler
        for blocks, original, first in (("down", "input", 1), ("up", "output", 0)):
            if match := re.match(rf"{blocks}_blocks\.(\d+)\.attentions\.(\d+)\.", module):
                number = int(match[1]) * per_block + int(match[2]) + first
                module = f"{original}_blocks.{number}.1.{module[match.end() :]}"
        module = re.sub(r"^mid_block\.attentions\.0\.", "middle_block.1.", module)
        if "resnets" in module or "samplers" in module:
            module = original_names.unet(self.unet, module)
        return "lora_unet_" + module.replace(".", "_")
