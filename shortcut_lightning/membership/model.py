"""A backbone as membership scores see it: noise predictions in float32, and names for its parts."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior, tensor_bytes


class Model:
    """Wraps a backbone. `image_encoder`, `text_encoder` and `schedule` are equal strings for equal
    parts, so that models which differ in their denoiser alone share latents, embeddings and noisy
    latents.

    Args:
        backbone: The model; it stays on its device.
        bf16: Compute in bfloat16 where autocast allows; errors are float32 all the same.
    """

    def __init__(self, backbone: Backbone, bf16: bool = False) -> None:
        self.backbone = backbone
        self.bf16 = bf16

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @cached_property
    def text_encoder(self) -> str:
        """Hash of the weights behind `embed`."""
        return _hash(self.backbone.text_encoders.state_dict().values())

    @cached_property
    def image_encoder(self) -> str:
        """Hash of the weights behind `encode`, all but the denoiser's and the text encoders', and
        of the scale of the latents."""
        others = {id(each) for each in _tensors(self.backbone.denoiser)}
        others |= {id(each) for each in _tensors(self.backbone.text_encoders)}
        everything = self.backbone.state_dict(keep_vars=True).values()
        weights = [each for each in everything if id(each) not in others]
        scale = torch.tensor([self.backbone.latent_scale])
        return _hash([*weights, scale])

    @cached_property
    def schedule(self) -> str:
        """Hash of the noise levels and of what the denoiser predicts, which are in no weight."""
        kind = torch.tensor([self.backbone.prediction.number])
        return _hash([self.backbone.path.table, kind])

    @cached_property
    def name(self) -> str:
        """Changes with any weight, with the noise schedule and with the prediction type."""
        denoiser = _hash(self.backbone.denoiser.state_dict().values())
        return f"{denoiser}-{self.text_encoder}-{self.image_encoder}-{self.schedule}"

    def encode(self, images: Tensor) -> Posterior:
        """(B, 3, H, W) in [0, 1] -> posterior; always float32, as the differences are small."""
        return self.backbone.encode(images)

    def embed(self, captions: Sequence[str]) -> Conditioning:
        """B captions -> conditioning; float32."""
        return self.backbone.embed(captions)

    def epsilon(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """(B, C, h, w), (B,) int64 -> predicted noise (B, C, h, w), float32.

        Whatever the denoiser predicts is turned into the noise that it stands for.
        """
        with self._precision():
            output = self.backbone.predict(noisy, timesteps, conditioning).float()
        return self.backbone.origin_and_noise(noisy, output, timesteps)[1]

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            yield


def _tensors(module: torch.nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _hash(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:12]
