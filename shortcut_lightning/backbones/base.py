"""What the rest of the house may ask of a text-to-image diffusion model.

Attacks, purifiers, membership scores and LightningModules see this interface only. A new family
is one file that implements it.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shortcut_lightning.backbones.paths import PREDICTIONS, Path, Prediction
from shortcut_lightning.safe_guidance import SafeGuidance

WeightingScheme = Literal["logit_normal", "none", "mode", "sigma_sqrt", "cosmap", "u_shaped"]
# What text encoders (CLIP; T5; T5 and language models) call their table of words.
_TABLES = r"\b(?:token_embedding|shared|embed_tokens)"


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian over latents, already in the scale the denoiser is trained on."""

    mean: Tensor  # (B, C, h, w)
    std: Tensor  # (B, C, h, w)

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised draw; gradients flow to the images. `noise` is N(0, 1), (B, C, h, w)."""
        return self.mean + self.std * noise


@dataclass(frozen=True)
class Conditioning:
    """Text as the denoiser takes it."""

    hidden: Tensor  # (B, L, D) last hidden states
    pooled: Tensor | None = None  # (B, P) for families that want a pooled embedding too
    mask: Tensor | None = None  # (B, L) bool, what of `hidden` is text, where that matters

    def __len__(self) -> int:
        return len(self.hidden)

    def rows(self, index: Tensor | slice) -> "Conditioning":
        """The given rows, in the given order; repeats are allowed."""
        more = (None if each is None else each[index] for each in (self.pooled, self.mask))
        return Conditioning(self.hidden[index], *more)

    @staticmethod
    def stack(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Concatenates along the batch."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        masks = [part.mask for part in parts if part.mask is not None]
        return Conditioning(
            torch.cat([part.hidden for part in parts]),
            torch.cat(pooled) if pooled else None,
            torch.cat(masks) if masks else None,
        )


# What is computed with a model depends on these settings too.
_SET_BY_A_RUN = ("prompt_chunks", "weighting_scheme", "guidance", "true_cfg_scale")


class Backbone(nn.Module, ABC):
    """A latent diffusion model: image <-> latent, text -> conditioning, noise prediction."""

    resolution: int  # side of a native image in pixels
    num_train_timesteps: int  # T; timesteps are integers in [0, T)
    prediction_type: str  # a key of `paths.PREDICTIONS`: what `predict` returns
    downsampling: int  # side of an image over side of its latent
    latent_scale: float  # what `encode` multiplies the autoencoder's own latents with
    latent_shift: float = 0.0  # what it takes off them before
    prompt_length: int  # words a prompt may have, begin and end not counted; 75 in CLIP
    prompt_chunks: int = 1  # rows of the text encoder that a prompt fills
    reads_clip_alone: bool = True  # whether words stand in `hidden` at the places CLIP gives them
    words: str = ""  # a hash of new words and of what they meant before they learned
    frees_text: bool = False  # whether text encoders stay on the CPU between prompts
    frees_autoencoder: bool = False  # whether it stays on the CPU between pictures
    steerable: bool = True  # whether `sample` takes `safety`
    usual_guidance: float = 7.5  # of `sample`, where nobody says another
    counterpart: str = "pocket-flow"  # the built-in family of the other kind
    # What a run may set, where the family does not refuse it (`refused`).
    weighting_scheme: WeightingScheme = "logit_normal"  # how a flow draws and weighs timesteps
    guidance: float = 1.0  # what a network with guidance as its input is told in `predict`
    true_cfg_scale: float = 1.0  # guidance by two calls on top of that, in `sample`; 1 is none

    @property
    def step(self) -> int:
        """Pixels that the sides of any picture are multiples of, for the denoiser to take it."""
        return self.downsampling

    @property
    def device(self) -> torch.device:
        """Where the model computes; parts of it may lie elsewhere between calls (`freed`)."""
        return self.path.table.device

    @property
    def freed(self) -> list[str]:
        """Names of the networks that stay on the CPU."""
        return []

    @property
    def multiple(self) -> int:
        """Pixels that the sides of a picture in its own shape are multiples of, at the least: what
        a U-Net would have beyond whole latents (`step`), it pads by itself."""
        return self.downsampling

    @property
    def longest(self) -> int:
        """Pixels that a side may have at most; 0 for any number."""
        return 0

    @property
    @abstractmethod
    def samplers(self) -> Sequence[str]:
        """What `sample` takes as `scheduler`."""

    def check_sampler(self, scheduler: str) -> None:
        """Raises ValueError where `sample` would not take it."""
        if scheduler and scheduler not in self.samplers:
            raise ValueError(
                f"Unknown sampling scheduler '{scheduler}'; allowed: {', '.join(self.samplers)} "
                "(model.sampling.scheduler)."
            )

    @abstractmethod
    def encode(self, images: Tensor) -> Posterior:
        """(B, 3, H, W) in [0, 1] -> posterior over (B, C, H/f, W/f). Differentiable."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W) clamped to [0, 1]. Differentiable inside the range."""

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """B prompts -> conditioning; longer prompts are truncated to the text encoder's length."""

    def lengthen(self, chunks: int) -> None:
        """Lets a prompt fill so many rows of the text encoder, 75 words in each, side by side for
        the denoiser, as A1111 and ComfyUI have it. Every prompt fills all of them, short ones with
        empty rows, so that what a prompt means does not depend on its neighbours in a batch."""
        self.prompt_length = self.prompt_length // self.prompt_chunks * chunks
        self.prompt_chunks = chunks

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Words of the vocabulary in a text, begin and end not counted."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The noise schedule: which share of a noisy latent is picture, and which is noise."""

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """(B, C, h, w), (B,) int64 -> the denoiser's own output (noise or velocity), float32."""

    @abstractmethod
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
        """B prompts, B seeds -> (B, 3, H, W) in [0, 1]; an image depends on its own seed alone.

        `size` is (H, W) in multiples of `step`; None is the native square. Without a
        `guidance_scale` it is the `usual_guidance`.
        With `safety` pictures are led away from the negative prompts by safe latent diffusion, and
        the prompt beside the wanted one is the empty one; it needs a `guidance_scale` above 1.
        """

    @abstractmethod
    def add_tokens(self, tokens: Sequence[str], initializers: Sequence[str] | None = None) -> None:
        """Adds learnable words, each atomic in the tokenizer. Rows start as the initializers' rows,
        or, where that is empty, as random directions of the vocabulary's typical norm."""

    @abstractmethod
    def add_lora(
        self,
        *,
        unet: bool,
        text_encoder: bool,
        rank: int,
        alpha: int,
        dropout: float,
        dora: bool,
        kind: Literal["lora", "loha", "lokr"] = "lora",
        convolutions: bool = False,
        ranks: Mapping[str, int] = {},
        alphas: Mapping[str, int] = {},
    ) -> None:
        """Puts adapters on the attention projections and, with `convolutions`, on those of the
        denoiser; only their weights require gradients. `ranks` and `alphas` are of layers whose
        names fit a pattern (`adapter_kinds.py`).

        `dora` decomposes the denoiser's by weight. Those of the text encoder stay plain: stock
        loaders (diffusers 0.42 with transformers 5.23) drop a text encoder's magnitudes.
        """

    @abstractmethod
    def without_lora(self) -> AbstractContextManager[None]:
        """Where the adapters of `add_lora` do nothing."""

    @abstractmethod
    def load_lora(self, path: str) -> None:
        """Merges a LoRA file or folder (diffusers', PEFT's or kohya's keys) into the weights."""

    @abstractmethod
    def load_tokens(self, paths: Sequence[str]) -> None:
        """Adds the words of textual-inversion files."""

    def check_savable(self) -> None:
        """Raises ValueError where `save` would, so that a run learns it before it trains."""

    @abstractmethod
    def save(self, folder: FilePath) -> None:
        """Writes a folder that `from_pretrained` of the family's own library loads."""

    @abstractmethod
    def save_lora(self, folder: FilePath) -> None:
        """Writes the adapters in diffusers' key format and, where kohya's sd-scripts have names for
        the family and the kind of adapter, in theirs."""

    @abstractmethod
    def save_tokens(self, folder: FilePath) -> None:
        """Writes one textual-inversion file per added word."""

    @abstractmethod
    def enable_gradient_checkpointing(self, blocks: Sequence[str] = ()) -> None:
        """Recomputes activations in the backward pass to save memory.

        Args:
            blocks: Of the denoiser, the blocks that do: names or patterns of modules, which stand
                for all that lies in them; all where empty.

        Raises ValueError for a name that no block has.
        """

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """The network behind `predict`."""

    @property
    @abstractmethod
    def text_encoders(self) -> nn.ModuleList:
        """The networks behind `embed`."""

    @property
    @abstractmethod
    def token_rows(self) -> list[nn.Parameter]:
        """The embedding rows of added words, one (n, D) per text encoder; empty without any."""

    def fingerprint(self) -> str:
        """Hash of the pretrained weights, the noise schedule, what is predicted and the scale of
        latents, and of what a run has set otherwise than usual; part of the key of everything
        computed with them.

        Adapters and what new words have learned are left out: stages run before that, so runs of
        other ranks and seeds share what was computed. How the words begin is in it (`words`), as
        stages read prompts with them.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            if is_adapter(name) or re.search(rf"{_TABLES}\.rows$", name):
                continue
            # The names that a part has without an adapter or new words around it.
            name = re.sub(rf"({_TABLES})\.table", r"\1", name.replace(".base_layer", ""))
            digest.update(name.encode())
            digest.update(tensor_bytes(tensor))
        digest.update(self.words.encode())
        digest.update(tensor_bytes(self.path.table))
        digest.update(f"{self.prediction_type} {self.latent_scale}".encode())
        if self.latent_shift:
            digest.update(f" {self.latent_shift}".encode())
        for name in _SET_BY_A_RUN:
            if getattr(self, name) != getattr(Backbone, name):
                digest.update(f" {name} {getattr(self, name)}".encode())
        return digest.hexdigest()[:16]

    @property
    def prediction(self) -> Prediction:
        """What the denoiser's output means."""
        return PREDICTIONS[self.prediction_type]

    def signal_and_sigma(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) int64 -> a and b of x_t = a x_0 + b eps, (B, 1, 1, 1) float32 each."""
        signal, noise = self.powers(timesteps)
        return signal.sqrt(), noise.sqrt()

    def powers(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) int64 -> a^2 and b^2, (B, 1, 1, 1) float32 each, on the timesteps' device."""
        at = timesteps.to(self.path.table.device)
        signal, noise = (each.view(-1, 1, 1, 1) for each in self.path.powers(at))
        return signal.to(timesteps.device), noise.to(timesteps.device)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = a x_0 + b eps; DDPM (arXiv 2006.11239), eq. 4, and rectified flow alike."""
        signal, sigma = self.signal_and_sigma(timesteps.to(latents.device))
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What `predict` should return for these latents and this noise."""
        levels = self.signal_and_sigma(timesteps.to(latents.device))
        return self.prediction.target(latents, noise, *levels)

    def origin_and_noise(
        self, noisy: Tensor, output: Tensor, timesteps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that the denoiser's output stands for."""
        levels = self.signal_and_sigma(timesteps.to(noisy.device))
        return self.prediction.origin_and_noise(noisy, output, *levels)

    def snr(self, timesteps: Tensor) -> Tensor:
        """(B,) signal-to-noise ratio a^2 / b^2."""
        signal, noise = self.powers(timesteps)
        return (signal / noise).view(-1)

    def draw_timesteps(self, count: int, generator: torch.Generator, least: int = 0) -> Tensor:
        """(count,) int64 on the CPU, from `least` on, as training of the family draws them."""
        return torch.randint(least, self.num_train_timesteps, (count,), generator=generator)

    @property
    def refused(self) -> Mapping[str, str]:
        """Settings of a training that mean nothing for the family, each with the reason."""
        return {}

    @property
    def learning_text_encoders(self) -> nn.ModuleList:
        """Those of `text_encoders` that learn where the text encoder is to be trained."""
        return self.text_encoders

    @property
    def distilled(self) -> str:
        """Why training on this checkpoint would disappoint; empty where it is one to be trained."""
        return ""

    @property
    def remarks(self) -> Sequence[str]:
        """What a reader of results should know of the family."""
        return ()

    def loss_weights(self, timesteps: Tensor) -> Tensor | None:
        """(B,) int64 -> (B,) weights of the denoising errors, where training has any."""
        return None


def is_adapter(name: str) -> bool:
    """Whether a tensor of this name belongs to an adapter, and not to what it stands beside."""
    return any(mark in name for mark in ("lora_", "hada_", "lokr_"))


def in_its_dtype(network: nn.Module, device: torch.device) -> AbstractContextManager[Any]:
    """Where a network's weights are halves it computes in halves, whatever it is given. They may
    lie elsewhere than on the `device` that computes."""
    # Of 4-bit weights only what is left in halves has a dtype to compute in.
    weight = next(each for each in network.parameters() if each.is_floating_point())
    if weight.dtype not in (torch.bfloat16, torch.float16):
        return nullcontext()
    # No cache: it would outlive a step in which adapters learn.
    return torch.autocast(device.type, weight.dtype, cache_enabled=False)


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor's numbers as they lie in memory, of any dtype, to be hashed."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return values.view(torch.uint8).numpy().tobytes()
