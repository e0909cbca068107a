"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206), and every model in the same folder layout.

A rectified flow with a transformer in which pictures and text attend to each other. The text is the
states before the last layer of two CLIP encoders side by side and, behind them, those of a T5.
Without a T5 zeros stand in its place, as many as `max_sequence_length`, which a folder may name
in its own file `shortcut_lightning.json`, where diffusers passes over it. New words are given to
the CLIP encoders; a T5 stays as it is and reads the letters of a new word.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from shortcut_lightning.backbones import lora
from shortcut_lightning.backbones.adapter_kinds import Kind
from shortcut_lightning.backbones.base import Conditioning, Posterior, in_its_dtype
from shortcut_lightning.backbones.long_prompts import side_by_side
from shortcut_lightning.backbones.paths import Path as NoisePath
from shortcut_lightning.backbones.paths import RectifiedFlow
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

_T5_LENGTH = 256  # of the stock pipeline, where a folder says nothing
_OWN_FILE, _LENGTH = "shortcut_lightning.json", "max_sequence_length"


class StableDiffusion3(StableDiffusion):
    """Latent rectified flow with two CLIP text encoders and a T5, which may be missing."""

    sigmas: Tensor
    pipeline_class = StableDiffusion3Pipeline
    pipeline_options: Mapping[str, Any] = {}
    part = "transformer"
    lora_settings = lora.JOINT
    convolutions: Sequence[str] = ()
    adapters: Sequence[Kind] = ("lora",)  # LyCORIS' keys are not settled for it

    def __init__(self, pipeline: StableDiffusion3Pipeline, max_sequence_length: int = 256) -> None:
        super().__init__(pipeline)
        self.text_encoder_2: CLIPTextModelWithProjection = pipeline.text_encoder_2
        self.tokenizer_2: CLIPTokenizer = pipeline.tokenizer_2
        self.text_encoder_3: nn.Module | None = pipeline.text_encoder_3
        self.tokenizer_3: Any = pipeline.tokenizer_3
        self.latent_shift = float(self.vae.config.shift_factor or 0.0)
        self.prompt_length = self.tokenizer.model_max_length - 2
        self.max_sequence_length = max_sequence_length

    def _read_schedule(self) -> None:
        schedule = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        # Rising, so that a later timestep is a noisier one, as everywhere.
        self.register_buffer("sigmas", schedule.sigmas.flip(0).float(), persistent=False)
        self.num_train_timesteps = len(self.sigmas)
        self.prediction_type = "flow"

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        revision: str | None = None,
        variant: str | None = None,
        dtype: torch.dtype = torch.float32,
        key: str = "model.pretrained_model_name_or_path",
    ) -> "StableDiffusion3":
        model = super().from_pretrained(path, revision, variant, dtype, key)
        model.max_sequence_length = int(_read(path, _OWN_FILE).get(_LENGTH, _T5_LENGTH))
        return model

    @classmethod
    def options_for(cls, path: str | Path) -> Mapping[str, Any]:
        if _read(path, "model_index.json").get("text_encoder_3", [True])[0]:
            return {}
        return {"text_encoder_3": None, "tokenizer_3": None}

    @property
    def path(self) -> NoisePath:
        return RectifiedFlow(self.sigmas)

    @property
    def refused(self) -> Mapping[str, str]:
        """See `Backbone`."""
        return {
            "snr_gamma": "Min-SNR weighs the steps of a variance-preserving model, and this one is "
            "a rectified flow, which draws its steps where they count; set it to 0.",
            "noise_offset": "the path of a rectified flow ends in noise alone, so its brightness "
            "needs no offset; set it to 0.",
        }

    def draw_timesteps(self, count: int, generator: torch.Generator, least: int = 0) -> Tensor:
        """Logit-normal, mean 0 and deviation 1, an index into the schedule with its shift, as in
        diffusers' DreamBooth example."""
        share = torch.randn(count, generator=generator).sigmoid()
        return (share * self.num_train_timesteps).long().clamp(least, self.num_train_timesteps - 1)

    @property
    def tokenizers(self) -> dict[str, CLIPTokenizer]:
        return super().tokenizers | {"tokenizer_2": self.tokenizer_2}

    @property
    def networks(self) -> dict[str, nn.Module]:
        return super().networks | {"text_encoder_2": self.text_encoder_2}

    def encode(self, images: Tensor) -> Posterior:
        posterior = super().encode(images)
        shift = self.latent_shift * self.latent_scale
        return Posterior(posterior.mean - shift, posterior.std)

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents + self.latent_shift * self.latent_scale)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        hidden, pooled = [], []
        for tokenizer, encoder in self.vocabularies:
            ids = self.token_ids(tokenizer, prompts)
            with in_its_dtype(encoder):
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
            list(prompts),
            padding="max_length",
            max_length=self.max_sequence_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.device)
        with torch.no_grad(), in_its_dtype(self.text_encoder_3):
            return self.text_encoder_3(ids)[0].float()

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        times = self.sigmas[timesteps] * self.scheduler.config.num_train_timesteps
        with in_its_dtype(self.denoiser):
            output = self.denoiser(
                noisy, conditioning.hidden, conditioning.pooled, times, return_dict=False
            )[0]
        return output.float()

    @property
    def samplers(self) -> Sequence[str]:
        return sorted(
            {type(self.scheduler).__name__, *(k.__name__ for k in self.scheduler.compatibles)}
        )

    def pipeline(self, scheduler: str = "") -> Any:
        self.pipeline_options = {
            "text_encoder_3": self.text_encoder_3, "tokenizer_3": self.tokenizer_3
        }  # fmt: skip
        return super().pipeline(scheduler)

    def save(self, folder: Path) -> None:
        super().save(folder)
        if self.max_sequence_length != _T5_LENGTH:
            facts = {_LENGTH: self.max_sequence_length}
            (folder / _OWN_FILE).write_text(json.dumps(facts) + "\n", "utf-8")

    def load_lora(self, path: str) -> None:
        lora.load_diffusers(self, path)

    def save_lora(self, folder: Path) -> None:
        """Diffusers' keys alone, which ComfyUI reads as well; kohya's are not settled for it."""
        lora.save_diffusers(self, folder)

    def save_token(self, path: Path, token: str, vectors: Sequence[Tensor]) -> None:
        save_file({"clip_l": vectors[0], "clip_g": vectors[1]}, path, {"token": token})


def _read(path: str | Path, name: str) -> dict[str, Any]:
    """A file of settings in a folder; nothing of a hub id, or where there is none."""
    file = Path(path) / name
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
