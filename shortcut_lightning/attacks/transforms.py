"""Differentiable random transforms an attack sees through; one draw for a whole batch."""

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_blur(images: Tensor, sigma: float | Tensor, size: int = 7) -> Tensor:
    """(N, 3, H, W), blurred with a kernel of `size` taps, edges mirrored."""
    offsets = torch.arange(size, device=images.device) - (size - 1) / 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(images, [size // 2] * 4, mode="reflect")
    return functional.conv2d(functional.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)


def blur_and_flip(images: Tensor, generator: torch.Generator, flip: bool = True) -> Tensor:
    """MetaCloak's: blur with sigma ~ U(0.1, 2) pixels, then mirror with probability 1/2. Draws
    sigma, then the coin."""
    sigma = 0.1 + 1.9 * torch.rand((), generator=generator).item()
    blurred = gaussian_blur(images, sigma)
    heads = torch.rand((), generator=generator).item() < 0.5
    return blurred.flip(-1) if flip and heads else blurred
