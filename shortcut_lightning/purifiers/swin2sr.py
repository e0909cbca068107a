"""Learned super-resolution: the picture is made small, and a network paints the detail anew."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from shortcut_lightning import weights
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.resampling import resized, shrunk
from shortcut_lightning.ranges import Count, NotNegative

_KEY = "data.purifiers.pretrained_model_name_or_path"


class Swin2SR(Purifier):
    """Shrinks images and has a Swin2SR model (arXiv 2209.11345) enlarge them again.

    Args:
        pretrained_model_name_or_path: A folder or hub id of transformers' Swin2SR, for example
            `caidas/swin2SR-classical-sr-x2-64` or `caidas/swin2SR-realworld-sr-x4-64-bsrgan-psnr`.
        shrink: Sides are divided by this first; 0 for the model's own factor.
        batch_size: Images worked on at a time.
    """

    differentiable = True

    def __init__(
        self, pretrained_model_name_or_path: str, shrink: NotNegative = 0.0, batch_size: Count = 4
    ) -> None:
        self.pretrained_model_name_or_path = pretrained_model_name_or_path
        self.shrink = shrink
        self.batch_size = batch_size

    @cached_property
    def network(self) -> Any:
        """The frozen model, loaded at first use."""
        from transformers import Swin2SRForImageSuperResolution

        source = self.pretrained_model_name_or_path
        try:
            model = weights.load(Swin2SRForImageSuperResolution, source, _KEY)
        except weights.WeightsError:
            raise
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Swin2SR cannot load '{source}' ({str(error).splitlines()[0]}); give a local "
                "folder or a hub id that can be reached "
                f"({_KEY})."
            ) from error
        return model.eval().requires_grad_(False)

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        network = self.network.to(images.device)
        small = shrunk(images, self.shrink or network.config.upscale)
        factor, window = network.config.upscale, network.config.window_size
        height, width = small.shape[-2:]
        # The model takes whole windows; what is added at the edges is cut off afterwards.
        margins = (0, -width % window, 0, -height % window)
        padded = functional.pad(small, margins, mode="replicate")
        large = torch.cat([network(part).reconstruction for part in padded.split(self.batch_size)])
        large = large[..., : factor * height, : factor * width]
        return resized(large.clamp(0, 1), (images.shape[-2], images.shape[-1]))
