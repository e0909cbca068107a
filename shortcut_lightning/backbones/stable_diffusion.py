"""Stable Diffusion 1.x and 2.x, and every model in the same folder layout, the pocket included."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import diffusers
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from shortcut_lightning.backbones import lora, lora_files, pipelines, token_files
from shortcut_lightning.backbones.adapter_kinds import Adapter, Kind
from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior, in_its_dtype
from shortcut_lightning.backbones.blocks import checkpointed, choose
from shortcut_lightning.backbones.long_prompts import in_chunks, side_by_side
from shortcut_lightning.backbones.paths import Path as NoisePath
from shortcut_lightning.backbones.paths import VariancePreserving
from shortcut_lightning.backbones.steering import steered
from shortcut_lightning.backbones.tokens import (
    TokenTable,
    add_rows,
    all_vectors,
    hash_of_words,
    merge_rows,
)
from shortcut_lightning.finite import NotFinite, all_finite
from shortcut_lightning.freezing import swapped
from shortcut_lightning.safe_guidance import SafeGuidance


class _Method(nn.Module):
    """A method of a network as a forward pass."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, given: Tensor) -> Any:
        return getattr(self.network, self.method)(given)


class _NoModule:
    """What a network says of itself, for who would move it or ask where it is."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


class StableDiffusion(Backbone):
    """Latent diffusion with one CLIP text encoder; epsilon- or v-prediction."""

    alphas: Tensor
    unet: Any
    pipeline_class: Any = StableDiffusionPipeline
    part = "unet"  # the denoiser's name in the pipeline
    lora_settings: Mapping[str, Any] = lora.UNET  # of the denoiser's adapters
    adapters: Sequence[Kind] = ("lora", "loha", "lokr")
    convolutions: Sequence[str] = lora.CONVOLUTIONS  # of the denoiser, by the ends of their names
    # What the pipeline is built with besides the networks.
    pipeline_options: Mapping[str, Any] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.vae: AutoencoderKL = pipeline.vae
        setattr(self, self.part, getattr(pipeline, self.part))
        self.text_encoder: CLIPTextModel = pipeline.text_encoder
        self.tokenizer: CLIPTokenizer = pipeline.tokenizer
        self.scheduler = pipeline.scheduler
        self._read_schedule()
        self.downsampling = self.downsampling_of(self.vae)
        self.resolution = self._native_size() * self.downsampling
        self.latent_scale = float(getattr(self.vae.config, "scaling_factor", 1.0))
        self.prompt_length = self._prompt_length()
        self.tokens: list[str] = []

    @property
    def step(self) -> int:
        """A U-Net halves the latents between each two of its levels."""
        return self.downsampling * 2 ** (len(self.denoiser.config.down_block_types) - 1)

    def _native_size(self) -> int:
        """Side of the latents of a native image."""
        return int(self.denoiser.config.sample_size)

    @staticmethod
    def downsampling_of(vae: Any) -> int:
        """Pixels along a latent's side, by an autoencoder's configuration."""
        return int(2 ** (len(vae.config.block_out_channels) - 1))

    def _prompt_length(self) -> int:
        """Tokens that a prompt may have, without begin and end."""
        return int(self.text_encoder.config.max_position_embeddings) - 2

    def _read_schedule(self) -> None:
        """What the scheduler says of noise levels and of what is predicted."""
        schedule = DDPMScheduler.from_config(self.scheduler.config)
        self.register_buffer("alphas", schedule.alphas_cumprod.float(), persistent=False)
        self.num_train_timesteps = schedule.config.num_train_timesteps
        self.prediction_type = schedule.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"The model's scheduler says prediction_type '{self.prediction_type}'; this "
                "backbone knows 'epsilon' and 'v_prediction' (scheduler/scheduler_config.json)."
            )

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves to a device, or turns into another dtype, all but what is freed."""
        held = dict(self._modules)
        for name in self.freed:
            del self._modules[name]
        try:
            return super()._apply(fn, recurse)
        finally:
            self._modules.clear()
            self._modules.update(held)

    @property
    def freed(self) -> list[str]:
        """See `Backbone`."""
        texts = [name for name in self.networks if name != self.part]
        return [*(texts if self.frees_text else []), *(["vae"] if self.frees_autoencoder else [])]

    @contextmanager
    def using(self, text_encoder: nn.Module) -> Iterator[None]:
        """Where a text encoder is asked: on the device for as long, and computing in its dtype.

        It does not learn, so what lay on the CPU is taken up again: nothing is copied back.
        """
        tensors = [*text_encoder.parameters(), *text_encoder.buffers()] if self.frees_text else []
        here = self.device
        with swapped(tensors, lambda data: data.to(here)), in_its_dtype(text_encoder, here):
            yield

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        revision: str | None = None,
        variant: str | None = None,
        dtype: torch.dtype = torch.float32,
        key: str = "model.pretrained_model_name_or_path",
        nf4: bool = False,
    ) -> Self:
        """Loads a diffusers folder or hub id, from safetensors alone.

        Raises ValueError that names the part or the tensors that are missing, unknown or not
        finite; `key` is the setting that named the model.
        """
        # In halves the autoencoder's pictures suffer, and it is small.
        encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
        halves = {name: dtype for name in (cls.part, *encoders)}
        pipeline = pipelines.load(
            cls.pipeline_class,
            str(path),
            key,
            revision=revision,
            variant=variant,
            dtypes=halves,
            options=cls.options_for(path),
            nf4=cls.part if nf4 else "",
        )
        return cls(pipeline)

    @classmethod
    def options_for(cls, path: str | Path) -> Mapping[str, Any]:
        """What the pipeline of a folder or hub id is built with besides its networks."""
        return cls.pipeline_options

    @property
    def tokenizers(self) -> dict[str, CLIPTokenizer]:
        """Each tokenizer by its name in the pipeline."""
        return {"tokenizer": self.tokenizer}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What may carry an adapter, by its name in the pipeline."""
        return {self.part: self.denoiser, "text_encoder": self.text_encoder}

    @property
    def vocabularies(self) -> list[tuple[CLIPTokenizer, Any]]:
        """Each tokenizer with its text encoder."""
        encoders = [network for name, network in self.networks.items() if name != self.part]
        return list(zip(self.tokenizers.values(), encoders, strict=True))

    def encode(self, images: Tensor) -> Posterior:
        with self._autoencoder_range():
            posterior = self.autoencoder("encode", images * 2 - 1).latent_dist
        scale = self.latent_scale
        return Posterior(posterior.mean.float() * scale, posterior.std.float() * scale)

    def decode(self, latents: Tensor) -> Tensor:
        with self._autoencoder_range():
            images = self.autoencoder("decode", latents / self.latent_scale).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def autoencoder(self, method: str, given: Tensor) -> Any:
        """What `encode` or `decode` of the autoencoder returns, on the device if it is freed.

        Copies of its weights then go there for as long as this, or autograd, needs them.
        """
        if not self.frees_autoencoder:
            return getattr(self.vae, method)(given)
        held = [*self.vae.named_parameters(), *self.vae.named_buffers()]
        copies = {f"network.{name}": tensor.to(self.device) for name, tensor in held}
        return functional_call(_Method(self.vae, method), copies, (given,))

    def _autoencoder_range(self) -> AbstractContextManager[Any]:
        """float32 where float16 would be used and the autoencoder says that it overflows in it."""
        kind = self.device.type
        half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
        if half and getattr(self.vae.config, "force_upcast", False):
            return torch.autocast(kind, enabled=False)
        return nullcontext()

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        with self.using(self.text_encoder):
            hidden = self.text_encoder(self.token_ids(self.tokenizer, prompts))[0]
        return Conditioning(side_by_side(hidden.float(), self.prompt_chunks))

    def token_ids(self, tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
        """(B * chunks, 77) token ids, padded and truncated; the rows of a prompt follow one
        another."""
        length = self.prompt_length // self.prompt_chunks
        texts = all_vectors(prompts, tokenizer)
        if self.prompt_chunks > 1:
            return in_chunks(tokenizer, texts, self.prompt_chunks, length).to(self.device)
        tokens = tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=length + 2,
            return_tensors="pt",
        )
        return tokens.input_ids.to(self.device)

    def count_tokens(self, text: str) -> int:
        (text,) = all_vectors([text], self.tokenizer)
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def alphas_cumprod(self) -> Tensor:
        """(T,) float32, the cumulative product of alphas of the noise schedule."""
        return self.alphas

    @property
    def path(self) -> NoisePath:
        return VariancePreserving(self.alphas)

    @property
    def refused(self) -> Mapping[str, str]:
        return {
            "weighting_scheme": "it is for rectified flows; this model draws its timesteps "
            "uniformly, and weighs them by model.snr_gamma. Leave it at 'logit_normal'.",
            "train_guidance": "this model takes no guidance while it learns; set it to 1.",
            "true_cfg_scale": "model.sampling.guidance_scale is that of this family; set it to 1.",
        }

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        with in_its_dtype(self.denoiser, self.device):
            return self.denoiser(noisy, timesteps, conditioning.hidden, return_dict=False)[
                0
            ].float()

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        negative_prompts: Sequence[str] | str = "",
        num_inference_steps: int = 25,
        guidance_scale: float | None = None,
        scheduler: str = "",
        safety: SafeGuidance | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        size = size or (self.resolution, self.resolution)
        if guidance_scale is None:
            guidance_scale = self.usual_guidance
        if isinstance(negative_prompts, str):
            negative_prompts = [negative_prompts] * len(prompts)
        stock = self.pipeline(scheduler)
        led: AbstractContextManager[None] = nullcontext()
        if safety is not None and not self.steerable:
            raise ValueError("Safe guidance is not known for this family (data.erasing.safety).")
        if safety is not None and any(negative_prompts):
            unwanted = self.embed(negative_prompts)
            calls = stock.scheduler.order  # how often a sampler asks in a step
            led = steered(self.denoiser, safety, unwanted, num_inference_steps, calls)
            negative_prompts = [""] * len(prompts)
        # Each latent from its own generator on the CPU: the same image in any batch, on any device.
        draws = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        shape = self.noise_shape(*(side // self.downsampling for side in size))
        latents = torch.cat([torch.randn(shape, generator=draw) for draw in draws])
        arguments = self.prompt_arguments(prompts, negative_prompts)
        for name in self.freed:  # or the pipeline may take their device for its own
            setattr(stock, name, _NoModule(self.vae) if name == "vae" else None)
        with led, in_its_dtype(self.denoiser, self.device):
            drawn = stock(
                **arguments,
                height=size[0],
                width=size[1],
                latents=self.to_pipeline(latents).to(self.device),
                generator=draws,
                num_inference_steps=num_inference_steps,
                **self.guidance_arguments(guidance_scale),
                output_type="latent",
            ).images
        drawn = self.from_pipeline(drawn.float(), size)
        images = self.decode(drawn)
        if not all_finite([drawn, images]):  # clamped, infinity would be white
            raise NotFinite(
                f"A picture sampled for '{prompts[0]}' is NaN or infinite: the weights are, or "
                "numbers overflowed in 16 bits (trainer.precision bf16-mixed or 32-true)."
            )
        return images

    def noise_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Of the noise that the stock pipeline draws for one picture with latents of this size."""
        return (1, self.denoiser.config.in_channels, height, width)

    def to_pipeline(self, noise: Tensor) -> Tensor:
        """Noise of `noise_shape` as the stock pipeline takes it."""
        return noise

    def from_pipeline(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """What the stock pipeline returns as latents of pictures of a size in pixels -> (B, C, h,
        w) as here."""
        return latents

    def stock_guidance(self, guidance_scale: float) -> float:
        """A guidance as the stock pipeline counts it; here 1 is none."""
        return guidance_scale

    def guidance_arguments(self, guidance_scale: float) -> dict[str, Any]:
        """The guidance as the stock pipeline takes it."""
        return {"guidance_scale": self.stock_guidance(guidance_scale)}

    def prompt_arguments(
        self, prompts: Sequence[str], negative_prompts: Sequence[str]
    ) -> dict[str, Any]:
        """The prompts as the stock pipeline takes them."""
        positive, negative = self.embed(prompts), self.embed(negative_prompts)
        given = {
            "prompt_embeds": positive.hidden,
            "negative_prompt_embeds": negative.hidden,
            "pooled_prompt_embeds": positive.pooled,
            "negative_pooled_prompt_embeds": negative.pooled,
        }
        return {name: states for name, states in given.items() if states is not None}

    @property
    def samplers(self) -> Sequence[str]:
        return sorted(kind.__name__ for kind in self.scheduler.compatibles)

    def pipeline(self, scheduler: str = "") -> Any:
        """Stock diffusers pipeline over the same weights; `scheduler` is a diffusers class name."""
        self.check_sampler(scheduler)
        chosen: Any = getattr(diffusers, scheduler) if scheduler else type(self.scheduler)
        pipeline = self.pipeline_class(
            vae=self.vae,
            scheduler=chosen.from_config(self.scheduler.config),
            **self.networks,
            **self.tokenizers,
            **self.pipeline_options,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def add_tokens(self, tokens: Sequence[str], initializers: Sequence[str] | None = None) -> None:
        if self.tokens:
            raise ValueError(f"Tokens were added already: {', '.join(self.tokens)}.")
        known = [token for token in tokens if token in self.tokenizer.get_vocab()]
        if known or len(set(tokens)) < len(tokens):
            raise ValueError(
                f"New tokens must be new and distinct; the vocabulary has: {', '.join(known)}, "
                f"given: {', '.join(tokens)} (model.new_tokens)."
            )
        for tokenizer, text_encoder in self.vocabularies:
            add_rows(tokenizer, text_encoder, tokens, initializers or [])
        self.tokens = list(tokens)
        self.words = hash_of_words(self.tokens, self.token_rows)

    def add_lora(
        self,
        *,
        unet: bool,
        text_encoder: bool,
        rank: int,
        alpha: int,
        dropout: float,
        dora: bool,
        kind: Kind = "lora",
        convolutions: bool = False,
        ranks: Mapping[str, int] = {},
        alphas: Mapping[str, int] = {},
    ) -> None:
        """See `Backbone`; only the adapters' weights are trainable afterwards."""
        wanted = Adapter(rank, alpha, dropout, dora, kind, convolutions, ranks, alphas)
        if kind not in self.adapters:
            raise ValueError(
                f"model.method is '{kind}', which no program's files have keys for in a model of "
                f"this family; allowed: full, {', '.join(self.adapters)}."
            )
        if convolutions and not (unet and self.convolutions):
            raise ValueError(
                "model.adapter.convolutions adapts the convolutions of a U-Net that learns: this "
                "model has none, or model.train_unet is false. Set it to false."
            )
        if unet:
            more = self.convolutions if convolutions else ()
            lora.insert(self.denoiser, wanted.config(self.lora_settings_for(self.denoiser), more))
        if text_encoder:
            for network in self.learning_text_encoders:
                lora.insert(network, wanted._replace(dora=False).config(lora.TEXT_ENCODER))
        wanted.check_ranks(lora.adapted_layers(self))

    @contextmanager
    def without_lora(self) -> Iterator[None]:
        networks = list(lora.adapted(self).values())
        for network in networks:
            lora.switch(network, on=False)
        try:
            yield
        finally:
            for network in networks:
                lora.switch(network, on=True)

    @classmethod
    def lora_settings_for(cls, denoiser: Any) -> Mapping[str, Any]:
        """Which layers of a denoiser an adapter stands beside."""
        return cls.lora_settings

    def load_lora(self, path: str) -> None:
        lora_files.merge(self, path)

    def lora_in_its_names(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A LoRA whose names are not those of diffusers in those, where that takes more than
        another name for a layer; as it is where there is no such form, or it is not known."""
        return tensors

    def load_tokens(self, paths: Sequence[str]) -> None:
        for path in paths:
            word = token_files.read(path)
            tables = [encoder.get_input_embeddings() for _, encoder in self.vocabularies]
            widths = [table.weight.shape[1] for table in tables]
            known = self.tokenizer.get_vocab()
            token_files.check(word, widths, self.prompt_length, known, path)
            pipeline = self.pipeline()
            for vectors, (tokenizer, encoder) in zip(word.vectors, self.vocabularies, strict=True):
                pipeline.load_textual_inversion(
                    vectors, token=word.token, tokenizer=tokenizer, text_encoder=encoder
                )

    def check_savable(self) -> None:
        """Raises ValueError where the denoiser is stored in 4 bits."""
        if getattr(self.denoiser, "hf_quantizer", None) is not None:
            raise ValueError(
                "A whole model cannot be written from 4 bits (model.compute.frozen_dtype nf4): "
                "export the adapter alone (Export's pipeline: false), or train with bf16."
            )

    def save(self, folder: Path) -> None:
        """Writes a plain diffusers folder in float32: adapters merged in, tokens in the table.

        Raises ValueError where the denoiser is stored in 4 bits.
        """
        self.check_savable()
        for tokenizer in self.tokenizers.values():
            # Or the file says how the last prompt was cut and filled, if there was one.
            tokenizer.backend_tokenizer.no_padding()
            tokenizer.backend_tokenizer.no_truncation()
        pipeline = self.pipeline()
        pipeline.scheduler = self.scheduler
        halves = any(p.dtype != torch.float32 for p in self.parameters())
        if self.tokens or lora.adapted(self) or halves:
            for name, network in deepcopy(self._changed_networks()).items():
                setattr(pipeline, name, network.float())
        if self.tokens:
            for name in self.networks.keys() - {self.part}:
                merge_rows(getattr(pipeline, name))
                # With 2, the legacy of old configs, pooling takes the highest id for the end of the
                # text, which is now a new word.
                if isinstance(config := getattr(pipeline, name).config, CLIPTextConfig):
                    config.eos_token_id = self.tokenizer.eos_token_id
        for name in lora.adapted(self):
            lora.merge(getattr(pipeline, name))
        pipeline.save_pretrained(folder, safe_serialization=True)

    def _changed_networks(self) -> dict[str, nn.Module]:
        """The networks that are not written as they lie in memory."""
        return self.networks

    def save_lora(self, folder: Path) -> None:
        if lora.is_lora(self):
            lora.save_diffusers(self, folder)
        lora.save_kohya(self, folder / "kohya_lora.safetensors")

    def kohya_layers(
        self, part: str, layers: Mapping[str, dict[str, Tensor]]
    ) -> dict[str, dict[str, Tensor]]:
        """The adapters of a part's layers, given by their names here, by kohya's names."""
        return {
            self.kohya_name(part, name.removeprefix("text_model.")): own
            for name, own in layers.items()
        }

    def kohya_name(self, part: str, module: str) -> str:
        """The name that kohya's sd-scripts give a module of "unet" or "text_encoder"."""
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        return prefix + module.replace(".", "_")

    def save_tokens(self, folder: Path) -> None:
        """Files `{token: vector}`; stock `load_textual_inversion` reads each."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [table.detach().cpu().float() for table in self.token_rows]
        used: set[str] = set()
        for number, token in enumerate(self.tokens):
            stem = re.sub(r"[^A-Za-z0-9_-]", "", token) or f"token{number}"
            if stem.casefold() in used:  # <a.1> and <a1>; file systems may not tell A from a
                stem = f"{stem}-{number}"
            used.add(stem.casefold())
            vectors = [table[number : number + 1].clone() for table in rows]
            self.save_token(folder / f"{stem}.safetensors", token, vectors)

    def save_token(self, path: Path, token: str, vectors: Sequence[Tensor]) -> None:
        """One word, with a row (1, D) for each text encoder."""
        save_file({token: vectors[0]}, path)

    def enable_gradient_checkpointing(self, blocks: Sequence[str] = ()) -> None:
        choose(self.denoiser, blocks)
        # Attacks differentiate it to the pixels. Freed, it would be computed again on the CPU.
        if self.vae._supports_gradient_checkpointing and not self.frees_autoencoder:
            self.vae.enable_gradient_checkpointing()
        self.denoiser.enable_gradient_checkpointing(checkpointed if blocks else None)
        for _, text_encoder in self.vocabularies:
            text_encoder.gradient_checkpointing_enable({"use_reentrant": False})
            # transformers has embeddings ask for gradients from then on, which this form of
            # checkpointing does not need; what nothing is learned from would keep its graph.
            if getattr(text_encoder, "_require_grads_hook", None):
                text_encoder.disable_input_require_grads()

    @property
    def denoiser(self) -> Any:
        return getattr(self, self.part)

    @property
    def text_encoders(self) -> nn.ModuleList:
        return nn.ModuleList([text_encoder for _, text_encoder in self.vocabularies])

    @property
    def token_rows(self) -> list[nn.Parameter]:
        tables = [text_encoder.get_input_embeddings() for _, text_encoder in self.vocabularies]
        return [table.rows for table in tables if isinstance(table, TokenTable)]
