"""Stable Diffusion 1.x and 2.x, and every model in the same folder layout, the pocket included."""

import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from shortcut_lightning.backbones import lora
from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior
from shortcut_lightning.backbones.tokens import TokenTable, initial_rows


class StableDiffusion(Backbone):
    """Latent diffusion with one CLIP text encoder; epsilon- or v-prediction."""

    alphas: Tensor

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        super().__init__()
        self.vae: AutoencoderKL = pipeline.vae
        self.unet: UNet2DConditionModel = pipeline.unet
        self.text_encoder: CLIPTextModel = pipeline.text_encoder
        self.tokenizer: CLIPTokenizer = pipeline.tokenizer
        self.scheduler = pipeline.scheduler
        schedule = DDPMScheduler.from_config(self.scheduler.config)
        self.register_buffer("alphas", schedule.alphas_cumprod.float(), persistent=False)
        self.num_train_timesteps = schedule.config.num_train_timesteps
        self.prediction_type = schedule.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"The model's scheduler says prediction_type '{self.prediction_type}'; this "
                "backbone knows 'epsilon' and 'v_prediction' (scheduler/scheduler_config.json)."
            )
        self.downsampling = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.resolution = self.unet.config.sample_size * self.downsampling
        self.prompt_length = self.text_encoder.config.max_position_embeddings - 2
        self.tokens: list[str] = []

    @classmethod
    def from_pretrained(
        cls, path: str | Path, revision: str | None = None, variant: str | None = None
    ) -> "StableDiffusion":
        """Loads a diffusers folder or hub id in fp32, from safetensors alone."""
        # Bars for reading local files only; a hub download keeps its own.
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        pipeline = StableDiffusionPipeline.from_pretrained(
            path,
            revision=revision,
            variant=variant,
            dtype=torch.float32,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        return cls(pipeline)

    def encode(self, images: Tensor) -> Posterior:
        posterior = self.vae.encode(images * 2 - 1).latent_dist
        scale = self.vae.config.scaling_factor
        return Posterior(posterior.mean.float() * scale, posterior.std.float() * scale)

    def decode(self, latents: Tensor) -> Tensor:
        images = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.text_encoder.config.max_position_embeddings,
            return_tensors="pt",
        )
        return Conditioning(self.text_encoder(tokens.input_ids.to(self.alphas.device))[0])

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def alphas_cumprod(self) -> Tensor:
        return self.alphas

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return self.unet(noisy, timesteps, conditioning.hidden, return_dict=False)[0].float()

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        negative_prompts: Sequence[str] | str = "",
        num_inference_steps: int = 25,
        guidance_scale: float = 7.5,
        scheduler: str = "",
    ) -> Tensor:
        if isinstance(negative_prompts, str):
            negative_prompts = [negative_prompts] * len(prompts)
        # Each latent from its own generator on the CPU: the same image in any batch, on any device.
        size = self.unet.config.sample_size
        shape = (1, self.unet.config.in_channels, size, size)
        draws = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        latents = torch.cat([torch.randn(shape, generator=draw) for draw in draws])
        return self.pipeline(scheduler)(
            prompt_embeds=self.embed(prompts).hidden,
            negative_prompt_embeds=self.embed(negative_prompts).hidden,
            latents=latents.to(self.alphas.device),
            generator=draws,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            output_type="pt",
        ).images.float()

    def pipeline(self, scheduler: str = "") -> StableDiffusionPipeline:
        """Stock diffusers pipeline over the same weights; `scheduler` is a diffusers class name."""
        chosen: Any = type(self.scheduler)
        if scheduler:
            allowed = sorted(kind.__name__ for kind in self.scheduler.compatibles)
            if scheduler not in allowed:
                raise ValueError(
                    f"Unknown sampling scheduler '{scheduler}'; allowed: {', '.join(allowed)} "
                    "(model.sampling_scheduler)."
                )
            chosen = getattr(diffusers, scheduler)
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=chosen.from_config(self.scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def add_tokens(self, tokens: Sequence[str], initializers: Sequence[str] | None = None) -> None:
        if self.tokens:
            raise ValueError(f"Tokens were added already: {', '.join(self.tokens)}.")
        table = self.text_encoder.get_input_embeddings()
        known = [token for token in tokens if token in self.tokenizer.get_vocab()]
        if known or len(set(tokens)) < len(tokens):
            raise ValueError(
                f"New tokens must be new and distinct; the vocabulary has: {', '.join(known)}, "
                f"given: {', '.join(tokens)} (model.new_tokens)."
            )
        rows = initial_rows(table.weight.detach(), len(tokens))
        for row, word in enumerate(initializers or []):
            if not word:
                continue
            ids = self.tokenizer(word, add_special_tokens=False).input_ids
            if len(ids) != 1:
                raise ValueError(
                    f"'{word}' is {len(ids)} tokens in this vocabulary; an initializer must be "
                    "exactly one (model.token_initializers)."
                )
            rows[row] = table.weight[ids[0]].detach().cpu()
        # single_word: otherwise a token would also match inside longer words. Words in brackets
        # cannot, and must match right after a name: "watermark<l3>".
        self.tokenizer.add_tokens(
            [
                AddedToken(
                    token, single_word=token[0].isalnum() or token[-1].isalnum(), normalized=False
                )
                for token in tokens
            ]
        )
        first_id = self.tokenizer.convert_tokens_to_ids(tokens[0])
        self.text_encoder.set_input_embeddings(
            TokenTable(table, rows.to(table.weight.device), first_id)
        )
        self.tokens = list(tokens)

    def add_lora(
        self, *, unet: bool, text_encoder: bool, rank: int, alpha: int, dropout: float, dora: bool
    ) -> None:
        """Adapters on the attention projections; only their weights are trainable afterwards."""
        config = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
        if unet:
            self.unet.add_adapter(LoraConfig(**config, use_dora=dora, **lora.UNET))
        if text_encoder:
            self.text_encoder.add_adapter(LoraConfig(**config, **lora.TEXT_ENCODER))

    def load_lora(self, path: str) -> None:
        lora.load(self, path)

    def load_tokens(self, paths: Sequence[str]) -> None:
        for path in paths:
            if not Path(path).is_file():
                raise ValueError(f"No textual-inversion file at '{path}' (model.embeddings).")
            self.pipeline().load_textual_inversion(path)

    def save(self, folder: Path) -> None:
        """Writes a plain diffusers folder: adapters merged in, tokens in the table."""
        pipeline = self.pipeline()
        pipeline.scheduler = self.scheduler
        if self.tokens or lora.adapted(self):
            pipeline.unet, pipeline.text_encoder = deepcopy((self.unet, self.text_encoder))
        if self.tokens:
            merged = pipeline.text_encoder.get_input_embeddings().merged()
            pipeline.text_encoder.set_input_embeddings(merged)
            pipeline.text_encoder.config.vocab_size = merged.num_embeddings
        if lora.adapted(self):
            lora.merge(pipeline)
        pipeline.save_pretrained(folder, safe_serialization=True)

    def save_lora(self, folder: Path) -> None:
        lora.save_diffusers(self, folder)
        lora.save_kohya(self, folder / "kohya_lora.safetensors")

    def save_tokens(self, folder: Path) -> None:
        """Files `{token: vector}`; stock `load_textual_inversion` reads each."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = self.token_rows[0].detach().cpu().float()
        for number, token in enumerate(self.tokens):
            stem = re.sub(r"[^A-Za-z0-9_-]", "", token) or f"token{number}"
            save_file({token: rows[number : number + 1].clone()}, folder / f"{stem}.safetensors")

    def enable_gradient_checkpointing(self) -> None:
        self.unet.enable_gradient_checkpointing()
        self.text_encoder.gradient_checkpointing_enable()

    @property
    def denoiser(self) -> nn.Module:
        return self.unet

    @property
    def text_encoders(self) -> nn.ModuleList:
        return nn.ModuleList([self.text_encoder])

    @property
    def token_rows(self) -> list[nn.Parameter]:
        table = self.text_encoder.get_input_embeddings()
        return [table.rows] if isinstance(table, TokenTable) else []
