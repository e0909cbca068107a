"""How strong the texture of a picture's smooth places is: what a learned perturbation leaves."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcut_lightning.metrics.high_frequency import brightness

# Differs from zero on nothing but texture: no plane and no straight edge along an axis answers.
# Scaled so that white noise keeps its standard deviation (Immerkaer, CVIU 64(2), 1996).
KERNEL = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
NORMAL_QUARTILE = 0.6745  # median of |x| for a standard normal x


def texture_level(images: Tensor, octave: int = 1) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N,) standard deviation of the brightness's texture, in levels of
    [0, 1], at 1/2^octave of the size: 0 is the finest texture, and the default what an autoencoder
    with few latents can still draw. The median over places, so that edges and detailed places, if
    they are less than half of the picture, do not count (Donoho and Johnstone's robust estimate).

    Raises ValueError for pictures smaller than 3 pixels at that size."""
    if min(images.shape[-2:]) >> octave < 3:
        raise ValueError(
            f"Images of {images.shape[-1]}x{images.shape[-2]} pixels are too small for octave "
            f"{octave}."
        )
    reduced = F.avg_pool2d(brightness(images)[:, None], 2**octave)
    answers = F.conv2d(reduced, KERNEL.to(images.device)[None, None]).abs()
    return answers.flatten(1).median(dim=1).values / NORMAL_QUARTILE
