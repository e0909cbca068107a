"""Painting over what was detected: the baseline "clean the pictures first"."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.extra import opencv


def inpaint(image: Tensor, boxes: Iterable[ConceptBox], radius: float = 3.0) -> Tensor:
    """(3, H, W) in [0, 1] -> the same with every box filled from its surroundings, rounded to 8
    bits. Telea's fast marching (Journal of Graphics Tools 9, 2004), in OpenCV; `radius` in pixels.
    """
    height, width = image.shape[-2:]
    mask = np.zeros((height, width), np.uint8)
    for box in boxes:
        if box.xyxy:
            x0, y0, x1, y1 = box.xyxy
            rows = slice(math.floor(y0 * height), math.ceil(y1 * height))
            mask[rows, math.floor(x0 * width) : math.ceil(x1 * width)] = 255
    if not mask.any():
        return image
    pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    cv2 = opencv()
    filled = cv2.inpaint(pixels, mask, radius, cv2.INPAINT_TELEA)
    return torch.from_numpy(filled).permute(2, 0, 1).float() / 255
