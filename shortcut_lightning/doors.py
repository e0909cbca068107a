"""What public calls check of the pictures and words that they are handed.

Pictures of another range, kind or shape would be worked on in silence, and the result would mean
nothing; so whoever calls is told what was given and what to do about it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_SLACK = 1e-3  # of [0, 1], less than half a level of 8 bits: what resizing may add


def check_pictures(images: Any, who: str) -> None:
    """Raises ValueError unless `images` are (N, 3, H, W) float32 in [0, 1]; `who` was called."""
    if not isinstance(images, Tensor):
        raise ValueError(
            f"{who} takes images as a tensor, (N, 3, H, W) float32 in [0, 1], and got "
            f"{type(images).__name__}."
        )
    if images.dtype != torch.float32:
        todo = ".float()" if images.is_floating_point() else ".float() / 255"
        raise ValueError(
            f"{who} takes images as float32 in [0, 1] and got {images.dtype}; give images{todo}."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        alone = "; one image is images[None]" if images.ndim == 3 and len(images) == 3 else ""
        raise ValueError(
            f"{who} takes images of shape (N, 3, H, W) and got {tuple(images.shape)}{alone}."
        )
    if not images.numel():
        return
    low, high = images.min().item(), images.max().item()
    if not -_SLACK <= low <= high <= 1 + _SLACK:  # NaN among them
        if high > 2:
            todo = "divide them by 255"
        elif low < 0:
            todo = "from [-1, 1] it is (images + 1) / 2"
        else:
            todo = "clamp them"
        raise ValueError(
            f"{who} takes images in [0, 1] and got values from {low:g} to {high:g}; {todo}."
        )


def check_words(words: Any, count: int, who: str, name: str = "prompts") -> None:
    """Raises ValueError unless `words` are `count` texts; `name` is the argument's."""
    if isinstance(words, str):
        raise ValueError(
            f"{who} takes {name} as a list, one for each image, and got a single text; "
            f"give [{name}] * len(images)."
        )
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{who} takes {name} as a list of texts, one for each image.")
    if len(words) != count:
        raise ValueError(f"{who} got {len(words)} {name} for {count} images; give one for each.")


def check_made(made: Any, given: Tensor, who: str) -> None:
    """Raises ValueError unless what `who` made of the pictures `given` has their shape."""
    if not isinstance(made, Tensor) or made.shape != given.shape:
        got = f"of shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise ValueError(
            f"{who}.run must return images of the shape it was given, {tuple(given.shape)}, and "
            f"returned {'them ' if isinstance(made, Tensor) else ''}{got}."
        )
