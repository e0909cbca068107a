"""How much a picture was changed: the largest change, PSNR, structural similarity."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_STRIP = 256  # rows at a time


class Fidelity(NamedTuple):
    """Of one picture against another of the same size."""

    linf_255: float  # largest change of a value, in /255
    psnr: float  # dB; infinite for equal pictures
    ssim: float  # 1 for equal pictures


@torch.no_grad()
def fidelity(image: Tensor, reference: Tensor) -> Fidelity:
    """Two pictures (3, H, W) in [0, 1], at least 8 px a side."""
    error = float((image - reference).double().square().mean())
    return Fidelity(
        linf_255=float((image - reference).abs().max()) * 255,
        psnr=-10 * math.log10(error) if error > 0 else math.inf,
        ssim=_ssim(image, reference),
    )


def _ssim(image: Tensor, reference: Tensor) -> float:
    """Structural similarity, strip by strip: a photograph at once would take gigabytes."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    # The usual window of 11 px, or the largest that a small picture leaves room for.
    side = min(11, min(image.shape[-2:]) // 2 * 2 - 1)
    total, height = 0.0, image.shape[-2]
    for first in range(0, height, _STRIP):
        last = min(first + _STRIP, height)
        top, bottom = max(0, first - side // 2), min(height, last + side // 2)
        _, places = structural_similarity_index_measure(
            image[None, :, top:bottom],
            reference[None, :, top:bottom],
            data_range=1.0,
            gaussian_kernel=side == 11,
            kernel_size=side,
            return_full_image=True,
        )
        total += float(places[0, :, first - top : last - top].double().sum())
    return total / image.numel()
