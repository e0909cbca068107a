"""Encoders: images or words in, one row of features each.

An encoder is a value: cheap to make, to print and to write in YAML. Its network is loaded at the
first call and is no module of anything, so that it can never enter a checkpoint. `name` is part of
the metric's name where it decides what the number means (`fid_pocket`, `fid_inception`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from shortcut_lightning.files.images import center_crop
from shortcut_lightning.pocket import networks


class ImageEncoder(ABC):
    """Images -> features.

    `network` is what `images` needs, loaded when first asked for; ValueError where it cannot be
    had. An encoder without weights leaves it at None. `only_pocket` says that it was trained on
    the pocket's drawn people alone.
    """

    name: str
    network: Any = None
    only_pocket = False

    @abstractmethod
    def images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1] -> (B, D) float32 on the same device, of any norm."""


class ImageTextEncoder(ImageEncoder):
    """Images and words -> features of one space."""

    @abstractmethod
    def texts(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """B prompts -> (B, D) float32 on `device`; long prompts are truncated."""


@torch.no_grad()
def image_features(
    encoder: ImageEncoder, images: Tensor, device: torch.device, batch_size: int = 32
) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, D) float32 on the CPU, `batch_size` images at a time.

    Encoders know squares: of pictures of another shape they see the middle, as references are."""
    chunks = center_crop(images, min(images.shape[-2:])).split(batch_size)
    return torch.cat([encoder.images(chunk.to(device)).float().cpu() for chunk in chunks])


@torch.no_grad()
def text_features(
    encoder: ImageTextEncoder, prompts: Sequence[str], device: torch.device, batch_size: int = 32
) -> Tensor:
    """N prompts -> (N, D) float32 on the CPU; each different prompt is encoded once."""
    different = list(dict.fromkeys(prompts))
    chunks = [different[i : i + batch_size] for i in range(0, len(different), batch_size)]
    rows = torch.cat([encoder.texts(chunk, device).float().cpu() for chunk in chunks])
    return rows[[different.index(prompt) for prompt in prompts]]


class PocketClip(ImageTextEncoder):
    """The pocket family's own CLIP."""

    name = "pocket-clip"
    only_pocket = True

    @cached_property
    def network(self) -> Any:
        """A frozen transformers CLIPModel."""
        return networks.load_clip()

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer in the same folder."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.network.name_or_path)

    def images(self, images: Tensor) -> Tensor:
        side = self.network.config.vision_config.image_size
        pixels = networks.fit(images, (side, side)) * 2 - 1
        return self.network.to(images.device).get_image_features(pixels).pooler_output

    def texts(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        features = self.network.to(device).get_text_features(**tokens.to(device))
        return features.pooler_output


class PocketIdentity(ImageEncoder):
    """The pocket family's identity encoder: who is in the picture, and nothing else."""

    name = "pocket-identity"
    only_pocket = True

    @cached_property
    def network(self) -> Any:
        """A frozen module of images in [0, 1]."""
        return networks.load_identity_encoder()

    def images(self, images: Tensor) -> Tensor:
        return self.network.to(images.device)(images)


class PocketAttributes(ImageEncoder):
    """Features of the pocket's attribute classifier, the counterpart of Inception's pool layer.

    Scaled to a mean square of one each: the kernel distance's cubic kernel expects that order of
    magnitude, and raw features would put its values in the thousands.
    """

    name = "pocket"
    only_pocket = True

    @cached_property
    def network(self) -> Any:
        """A frozen module with `features(images)`."""
        return networks.load_attribute_classifier()

    def images(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.to(images.device).features(images)
        return features / features.square().mean(dim=1, keepdim=True).sqrt()
