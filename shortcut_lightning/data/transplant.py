"""What a purifier takes off the photographs, put on others: their noise without the subject.

Total variation splits a picture into a cartoon and its texture, and so takes the subject's outlines
along least; the limit cuts what is left of them, and the place where the rest comes down is random.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.batch import Example
from shortcut_lightning.files.images import round_to_8_bits


def transplant(
    onto: Sequence[Example],
    noisy: Sequence[Example],
    cleaned: Sequence[Example],
    *,
    limit: float,
    step: int,
    seed: int,
) -> list[Example]:
    """Copies of `onto`, each with what is in one of `noisy` and not in the same of `cleaned`.

    Args:
        onto: Pictures of any size.
        noisy: The photographs; they take turns.
        cleaned: The same without their noise.
        limit: Most that a pixel changes, in /255.
        step: A residual is moved, around its edges, by a multiple of so many pixels: a texture that
            came through an autoencoder has the grid of its latents.
        seed: Of the run; decides the places.
    """
    residuals = [
        (before.image - after.image).clamp(-limit / 255, limit / 255)
        for before, after in zip(noisy, cleaned, strict=True)
    ]
    return [
        example._replace(image=_with(example.image, residuals[k % len(residuals)], step, seed, k))
        for k, example in enumerate(onto)
    ]


def _with(image: Tensor, residual: Tensor, step: int, seed: int, number: int) -> Tensor:
    chance = draws.generator(seed, "transplant", number)
    rows, columns = (
        (torch.arange(size) + step * int(torch.randint(own, (), generator=chance))) % own
        for size, own in zip(image.shape[-2:], residual.shape[-2:], strict=True)
    )
    moved = residual[:, rows][:, :, columns]
    if torch.rand((), generator=chance) < 0.5:
        moved = moved.flip(-1)
    return round_to_8_bits(image + moved)
