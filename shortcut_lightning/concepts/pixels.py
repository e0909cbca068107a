"""Tensors to the 8-bit pictures that detectors of other packages take, and boxes back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.batch import ConceptBox


def to_rgb(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1] -> (H, W, 3) 8-bit RGB."""
    return (image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy().copy()


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) 8-bit RGB -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def enlarged(image: Tensor, shortest: int) -> Tensor:
    """(3, H, W), smoothly enlarged so that no side is under `shortest` pixels; never shrunk."""
    smaller = min(image.shape[-2:])
    if smaller >= shortest:
        return image
    size = [max(shortest, round(length * shortest / smaller)) for length in image.shape[-2:]]
    return functional.interpolate(image[None].float(), size, mode="bicubic")[0].clamp(0, 1)


def around(
    label: str, score: float, points: NDArray[np.floating], height: int, width: int
) -> ConceptBox | None:
    """The upright box around points (P, 2) in pixels, clipped; None where nothing is left."""
    x0, y0 = points.min(axis=0)
    x1, y1 = points.max(axis=0)
    x0, x1 = (min(max(float(x) / width, 0.0), 1.0) for x in (x0, x1))
    y0, y1 = (min(max(float(y) / height, 0.0), 1.0) for y in (y0, y1))
    if x0 >= x1 or y0 >= y1:
        return None
    return ConceptBox(label, min(max(float(score), 0.0), 1.0), (x0, y0, x1, y1))
