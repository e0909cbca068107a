"""JPEG compression: what most published images go through anyway."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Quality


class Jpeg(Purifier):
    """Compresses and decompresses with Pillow at `quality`, 1 (worst) to 95."""

    def __init__(self, quality: Quality = 75) -> None:
        self.quality = quality

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        return jpeg(images, self.quality)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """(N, 3, H, W) in [0, 1], each through a file of that `quality`."""
    levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    rows = [torch.from_numpy(_through_a_file(row, quality)) for row in levels]
    return torch.stack(rows).permute(0, 3, 1, 2).to(images) / 255


def _through_a_file(levels: np.ndarray, quality: int) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(levels).save(file, format="JPEG", quality=quality)
    with Image.open(file) as opened:
        return np.array(opened)
