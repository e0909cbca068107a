"""Encoders the world has trained: CLIP, DINO and its kin, Inception.

Each reads a local folder or a hub id, prepares images with the preprocessor saved beside the
weights, and takes the name of the model, so that numbers of different extractors stay apart.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning import weights
from shortcut_lightning.metrics.encoders import ImageEncoder, ImageTextEncoder

_KEY = "the callback's encoder.pretrained_model_name_or_path"


class Clip(ImageTextEncoder):
    """A CLIP model of transformers, for example `openai/clip-vit-large-patch14`."""

    def __init__(self, pretrained_model_name_or_path: str = "openai/clip-vit-base-patch32") -> None:
        self.source = pretrained_model_name_or_path
        self.name = _name(self.source)

    @cached_property
    def network(self) -> Any:
        """The CLIPModel, loaded at first use."""
        from transformers import CLIPModel

        return _network(CLIPModel, self.source)

    @cached_property
    def preprocess(self) -> Any:
        """Resizing and normalisation as saved with the weights."""
        return _image_processor(self.source)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer saved with the weights."""
        from transformers import AutoTokenizer

        return _load(AutoTokenizer.from_pretrained, self.source)

    def images(self, images: Tensor) -> Tensor:
        pixels = _prepared(self.preprocess, images)
        return self.network.to(images.device).get_image_features(pixels).pooler_output

    def texts(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(device)
        return self.network.to(device).get_text_features(**tokens).pooler_output


class Dino(ImageEncoder):
    """A vision transformer of transformers, for example DINO (as in DreamBooth's paper), DINOv2.

    The feature is the class token after the last layer.
    """

    def __init__(self, pretrained_model_name_or_path: str = "facebook/dinov2-small") -> None:
        self.source = pretrained_model_name_or_path
        self.name = _name(self.source)

    @cached_property
    def network(self) -> Any:
        """The model, loaded at first use."""
        from transformers import AutoModel

        # The class token before the pooler is the feature; DINO's files have no pooler.
        return _network(AutoModel, self.source, unused=r"^pooler\.")

    @cached_property
    def preprocess(self) -> Any:
        """Resizing and normalisation as saved with the weights."""
        return _image_processor(self.source)

    def images(self, images: Tensor) -> Tensor:
        pixels = _prepared(self.preprocess, images)
        return self.network.to(images.device)(pixels).last_hidden_state[:, 0]


class Inception(ImageEncoder):
    """The Inception-v3 pool features that published FID numbers use (extra `inception`)."""

    name = "inception"

    @cached_property
    def network(self) -> Any:
        """torch-fidelity's network; its weights are downloaded at first use and kept by torch."""
        if find_spec("torch_fidelity") is None:
            raise ValueError(
                "the Inception extractor needs torch-fidelity, which is not installed: "
                "pip install 'shortcut-lightning[inception]', or set the callback's `encoder` to "
                "shortcut_lightning.metrics.PocketAttributes"
            )
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            return NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
        except OSError as error:  # urllib's errors are OSErrors
            raise ValueError(
                f"the Inception weights could not be fetched ({error}); without a connection, set "
                "the callback's `encoder` to shortcut_lightning.metrics.PocketAttributes"
            ) from error

    def images(self, images: Tensor) -> Tensor:
        return self.network.to(images.device)((images * 255).round().byte())


def _name(source: str) -> str:
    """The last part of a folder or hub id: metric names and loggers give "/" a meaning."""
    return PurePosixPath(source.rstrip("/")).name


def _network(kind: Any, source: str, unused: str = "") -> Any:
    network = _load(lambda each: weights.load(kind, each, _KEY, unused=unused), source)
    return network.eval().requires_grad_(False)


def _load(load: Callable[[str], Any], source: str) -> Any:
    try:
        with weights.one_line():
            return load(source)
    except weights.WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(
            f"encoder {source!r} is neither a folder with a model nor a hub id that can be reached "
            "from here; set the callback's `encoder.pretrained_model_name_or_path` to a local "
            "folder, or its `encoder` to one of the pocket's"
        ) from error


def _image_processor(source: str) -> Any:
    from transformers import AutoImageProcessor

    return _load(lambda s: AutoImageProcessor.from_pretrained(s, backend="pil"), source)


def _prepared(processor: Any, images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the processor's pixels on the same device, via 8-bit images."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    prepared = processor(list(np.ascontiguousarray(pixels)), return_tensors="pt")
    return prepared["pixel_values"].to(images.device)
