"""LPIPS (arXiv 1801.03924): how different two pictures look, by a network's features."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor


def lpips(
    network: Literal["alex", "vgg", "squeeze"], device: torch.device, what: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of two batches (N, 3, H, W) in [0, 1] -> (N,), differentiable; 0 for equal ones.

    It needs torchvision and the network's weights. Raises ValueError where they cannot be had;
    `what` is who asks for it, for the message.
    """
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        measure = LearnedPerceptualImagePatchSimilarity(network, reduction="mean", normalize=True)
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{what} needs torchvision and the weights of '{network}', which cannot be had here "
            f"({str(error).strip().splitlines()[0]})."
        ) from error
    measure = measure.to(device).requires_grad_(False)
    return lambda one, other: torch.stack(
        [measure(a[None], b[None]) for a, b in zip(one, other, strict=True)]
    )
