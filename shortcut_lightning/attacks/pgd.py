"""Projected steps along the sign of the gradient (PGD, arXiv 1706.06083), shared by attacks.

Sizes and budgets are in /255. Because only the sign is used, images of a batch do not influence one
another through a loss that is a mean over them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm


def project(changed: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Into the L-infinity ball of `epsilon` /255 around `clean`, then into [0, 1]."""
    radius = epsilon / 255
    return (clean + (changed - clean).clamp(-radius, radius)).clamp(0, 1)


def random_start(clean: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """A uniform point of the ball; `generator` lives on the CPU, whatever the images' device."""
    noise = torch.rand(clean.shape, generator=generator).to(clean.device)
    return project(clean + (2 * noise - 1) * epsilon / 255, clean, epsilon)


def sign_pgd(
    clean: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    epsilon: float,
    step_sizes: Sequence[float],
    ascending: bool,
    start: Tensor | None = None,
    title: str = "PGD",
) -> Tensor:
    """One step for each of `step_sizes`, up or down `loss`, which takes the images, (N, 3, H, W) in
    [0, 1], to a scalar. Starts at `start`, else at `clean`."""
    direction = 1 if ascending else -1
    images = clean if start is None else start
    with tqdm(step_sizes, desc=title, unit="step", mininterval=0.5) as bar:
        for size in bar:
            images = images.detach().requires_grad_()
            value = loss(images)
            (gradient,) = torch.autograd.grad(value, images)
            with torch.no_grad():
                moved = images + direction * size / 255 * gradient.sign()
                images = project(moved, clean, epsilon)
            bar.set_postfix(loss=f"{value.item():.4g}", refresh=False)
    return images.detach()
