"""Changing the size of images on their way through a purifier."""

from torch import Tensor
from torch.nn import functional


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 3, H, W) -> (N, 3, *size), bicubic, antialiased where it shrinks, clamped to [0, 1];
    the same images where the size is theirs already. Differentiable."""
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


def shrunk(images: Tensor, factor: float, multiple: int = 1) -> Tensor:
    """Each side divided by `factor`, to the nearest multiple of `multiple` that is not 0."""
    height, width = images.shape[-2:]
    sides = [max(multiple, round(side / factor / multiple) * multiple) for side in (height, width)]
    return resized(images, (sides[0], sides[1]))
