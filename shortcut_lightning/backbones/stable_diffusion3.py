"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206), and every model in the same folder layout.

A rectified flow with a transformer in which pictures and text attend to each other. The text is the
states before the last layer of two CLIP encoders side by side and, behind them, those of a T5.
Without a T5 zeros stand in its place, as many as `max_sequence_length`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from shortcut_lightning.backbones.base import Conditioning, in_its_dtype
from shortcut_lightning.backbones.flow import FlowTransformer, read_facts
from shortcut_lightning.backbones.long_prompts import side_by_side
from shortcut_lightning.backbones.tokens import all_vectors


class StableDiffusion3(FlowTransformer):
    """Latent rectified flow with two CLIP text encoders and a T5, which may be missing."""

    pipeline_class = StableDiffusion3Pipeline
    max_sequence_length = 256
    token_keys = ("clip_l", "clip_g", "t5xxl")
    learning_encoders = ("text_encoder", "text_encoder_2")
    takes_chunks = True

    def __init__(self, pipeline: StableDiffusion3Pipeline) -> None:
        super().__init__(pipeline)
        self.text_encoder_2: CLIPTextModelWithProjection = pipeline.text_encoder_2
        self.tokenizer_2: CLIPTokenizer = pipeline.tokenizer_2
        self.text_encoder_3: nn.Module | None = pipeline.text_encoder_3
        self.tokenizer_3: Any = pipeline.tokenizer_3
        self.reads_clip_alone = self.text_encoder_3 is None
        self.pipeline_options = (
            {"text_encoder_3": None, "tokenizer_3": None} if self.text_encoder_3 is None else {}
        )

    @property
    def longest(self) -> int:
        """As many patches as the transformer has places for."""
        return int(self.denoiser.config.pos_embed_max_size) * self.step

    def _native_size(self) -> int:
        return int(self.denoiser.config.sample_size)

    @classmethod
    def options_for(cls, path: str | Path) -> Mapping[str, Any]:
        if read_facts(path, "model_index.json").get("text_encoder_3", [True])[0]:
            return {}
        return {"text_encoder_3": None, "tokenizer_3": None}

    @property
    def tokenizers(self) -> dict[str, Any]:
        found = super().tokenizers | {"tokenizer_2": self.tokenizer_2}
        return found if self.text_encoder_3 is None else found | {"tokenizer_3": self.tokenizer_3}

    @property
    def networks(self) -> dict[str, nn.Module]:
        found = super().networks | {"text_encoder_2": self.text_encoder_2}
        if self.text_encoder_3 is None:
            return found
        return found | {"text_encoder_3": self.text_encoder_3}

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        hidden, pooled = [], []
        for tokenizer, encoder in self.vocabularies[:2]:
            ids = self.token_ids(tokenizer, prompts)
            with self.using(encoder):
                states = encoder(ids, output_hidden_states=True)
                # Pooled at the end of the text, wherever new words stand in the vocabulary.
                ends = (ids == tokenizer.eos_token_id).int().argmax(dim=1)
                last = states.last_hidden_state[torch.arange(len(ids), device=ids.device), ends]
                last = last[:: self.prompt_chunks]  # of a prompt's first row
                pooled.append(encoder.text_projection(last).float())
            hidden.append(side_by_side(states.hidden_states[-2].float(), self.prompt_chunks))
        wide = self.denoiser.config.joint_attention_dim
        clip = torch.cat(hidden, dim=-1)
        clip = functional.pad(clip, (0, wide - clip.shape[-1]))
        both = torch.cat([clip, self._third(prompts, clip)], dim=1)
        return Conditioning(both, torch.cat(pooled, dim=-1))

    def _third(self, prompts: Sequence[str], like: Tensor) -> Tensor:
        """(B, L, D) states of the T5, or the zeros that stand for it."""
        if self.text_encoder_3 is None:
            return like.new_zeros(len(prompts), self.max_sequence_length, like.shape[-1])
        ids = self.tokenizer_3(
            all_vectors(prompts, self.tokenizer_3),
            padding="max_length",
            max_length=self.max_sequence_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.device)
        with self.using(self.text_encoder_3):
            return self.text_encoder_3(ids)[0].float()

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        times = self.sigmas[timesteps] * self.scheduler.config.num_train_timesteps
        with in_its_dtype(self.denoiser, self.device):
            output = self.denoiser(
                noisy, conditioning.hidden, conditioning.pooled, times, return_dict=False
            )[0]
        return output.float()
