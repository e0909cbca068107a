"""What the rest of the house may ask of a text-to-image diffusion model.

Attacks, purifiers, membership scores and LightningModules see this interface only. A new family
is one file that implements it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


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

    def __len__(self) -> int:
        return len(self.hidden)

    def rows(self, index: Tensor | slice) -> "Conditioning":
        """The given rows, in the given order; repeats are allowed."""
        return Conditioning(self.hidden[index], None if self.pooled is None else self.pooled[index])

    @staticmethod
    def stack(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Concatenates along the batch."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(
            torch.cat([part.hidden for part in parts]), torch.cat(pooled) if pooled else None
        )


class Backbone(nn.Module, ABC):
    """A latent diffusion model: image <-> latent, text -> conditioning, noise prediction."""

    resolution: int  # side of a native image in pixels
    num_train_timesteps: int  # T; timesteps are integers in [0, T)
    prediction_type: str  # "epsilon" or "v_prediction"
    downsampling: int  # side of an image over side of its latent
    latent_scale: float  # what `encode` multiplies the autoencoder's own latents with
    prompt_length: int  # words a prompt may have, begin and end not counted; 75 in CLIP

    @property
    @abstractmethod
    def samplers(self) -> Sequence[str]:
        """What `sample` takes as `scheduler`."""

    def check_sampler(self, scheduler: str) -> None:
        """Raises ValueError where `sample` would not take it."""
        if scheduler and scheduler not in self.samplers:
            raise ValueError(
                f"Unknown sampling scheduler '{scheduler}'; allowed: {', '.join(self.samplers)} "
                "(model.sampling_scheduler)."
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

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Words of the vocabulary in a text, begin and end not counted."""

    @abstractmethod
    def alphas_cumprod(self) -> Tensor:
        """(T,) float32, the cumulative product of alphas of the noise schedule."""

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
        guidance_scale: float = 7.5,
        scheduler: str = "",
    ) -> Tensor:
        """B prompts, B seeds -> (B, 3, H, W) in [0, 1]; an image depends on its own seed alone."""

    @abstractmethod
    def add_tokens(self, tokens: Sequence[str], initializers: Sequence[str] | None = None) -> None:
        """Adds learnable words, each atomic in the tokenizer. Rows start as the initializers' rows,
        or, where that is empty, as random directions of the vocabulary's typical norm."""

    @abstractmethod
    def add_lora(
        self, *, unet: bool, text_encoder: bool, rank: int, alpha: int, dropout: float, dora: bool
    ) -> None:
        """Puts adapters on the attention projections; only their weights require gradients.

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

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes a folder that `from_pretrained` of the family's own library loads."""

    @abstractmethod
    def save_lora(self, folder: Path) -> None:
        """Writes the adapters once in diffusers' key format and once in kohya's."""

    @abstractmethod
    def save_tokens(self, folder: Path) -> None:
        """Writes one textual-inversion file per added word."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Recomputes activations in the backward pass to save memory."""

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
        latents; part of the key of everything computed with them.

        Adapters and new words are left out: stages run before they have learned anything, so runs
        of other ranks and seeds share what was computed.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            if "lora_" in name or name.endswith("token_embedding.rows"):
                continue
            # The names that a part has without an adapter or new words around it.
            name = name.replace(".base_layer", "").replace(
                "token_embedding.table", "token_embedding"
            )
            digest.update(name.encode())
            digest.update(tensor_bytes(tensor))
        digest.update(tensor_bytes(self.alphas_cumprod()))
        digest.update(f"{self.prediction_type} {self.latent_scale}".encode())
        return digest.hexdigest()[:16]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps; DDPM (arXiv 2006.11239), eq. 4."""
        signal, sigma = self._signal_and_sigma(latents, timesteps)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What `predict` should return: the noise, or the velocity (arXiv 2202.00512, app. D)."""
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self._signal_and_sigma(latents, timesteps)
        return signal * noise - sigma * latents

    def snr(self, timesteps: Tensor) -> Tensor:
        """(B,) signal-to-noise ratio abar_t / (1 - abar_t)."""
        alphas = self.alphas_cumprod().to(timesteps.device)[timesteps]
        return alphas / (1 - alphas)

    def _signal_and_sigma(self, like: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod().to(like.device)[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()


def in_its_dtype(network: nn.Module) -> AbstractContextManager[Any]:
    """Where a network's weights are halves it computes in halves, whatever it is given."""
    weight = next(network.parameters())
    if weight.dtype not in (torch.bfloat16, torch.float16):
        return nullcontext()
    # No cache: it would outlive a step in which adapters learn.
    return torch.autocast(weight.device.type, weight.dtype, cache_enabled=False)


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor's numbers as they lie in memory, of any dtype, to be hashed."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return values.view(torch.uint8).numpy().tobytes()
