"""How much of a picture is fine texture: the trace that learned perturbations leave."""

import torch
from torch import Tensor


def brightness(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, H, W) float32, weighed as the eye does (ITU-R BT.601)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)
    return torch.einsum("nchw,c->nhw", images.float(), weights)


def high_frequency_share(images: Tensor, cutoff: float = 0.5) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N,) share of the brightness's spectral energy, without its mean,
    at frequencies above `cutoff` of the highest along an axis (0.5 cycles per pixel); 0 for a flat
    picture. A Hann window keeps the picture's edges from counting as texture."""
    height, width = images.shape[-2:]
    grey = brightness(images)
    window = torch.outer(
        torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False)
    ).to(images.device)
    mean = (grey * window).sum((1, 2), keepdim=True) / window.sum()
    energy = torch.fft.rfft2((grey - mean) * window).abs().square()
    # rfft2 keeps half of the plane: columns in the middle stand for two.
    twice = torch.full((energy.shape[-1],), 2.0, device=images.device)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    energy = energy * twice
    rows = torch.fft.fftfreq(height, device=images.device).abs()
    columns = torch.fft.rfftfreq(width, device=images.device)
    radius = (rows[:, None].square() + columns[None].square()).sqrt()
    high = (energy * (radius > cutoff / 2)).sum((1, 2))
    total = energy.sum((1, 2))
    return torch.where(total > 1e-12, high / total.clamp(min=1e-12), torch.zeros_like(total))
