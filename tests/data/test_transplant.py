"""Noise of some pictures on others: python -m pytest tests/data/test_transplant.py"""

import torch
from torch import Tensor

from shortcut_lightning.batch import Example
from shortcut_lightning.data.transplant import transplant

GREY = 128 / 255


def examples(*images: Tensor) -> list[Example]:
    return [Example(image, "a dog", f"{number}.png") for number, image in enumerate(images)]


def on_grey(residuals: list[Tensor], sizes: list[tuple[int, int]], **options: int) -> list[Tensor]:
    """What `transplant` adds to grey pictures, in /255."""
    grey = examples(*(torch.full((3, *size), GREY) for size in sizes))
    clean = examples(*(torch.full_like(residual, GREY) for residual in residuals))
    noisy = examples(*(GREY + residual / 255 for residual in residuals))
    made = transplant(grey, noisy, clean, **{"limit": 255, "step": 1, "seed": 0, **options})
    assert [example.name for example in made] == [example.name for example in grey]
    return [255 * (after.image - GREY) for after in made]


def test_every_pixel_of_the_residual_comes_down_somewhere() -> None:
    residual = torch.arange(3 * 8 * 8).view(3, 8, 8) % 50 - 25.0
    for added in on_grey([residual], [(8, 8)] * 4):
        for channel in range(3):
            mine, its = added[channel].flatten().sort()[0], residual[channel].flatten().sort()[0]
            torch.testing.assert_close(mine, its, atol=1.0, rtol=0)  # the pictures have 8 bits


def test_residuals_take_turns_and_keep_the_limit() -> None:
    low, high = torch.full((3, 8, 8), -40.0), torch.full((3, 8, 8), 10.0)
    added = on_grey([low, high], [(8, 8)] * 4, limit=20)
    assert [round(float(one.mean())) for one in added] == [-20, 10, -20, 10]


def test_the_place_is_random_on_the_grid_and_the_seeds() -> None:
    residual = torch.zeros(3, 16, 16)
    residual[:, 4:8, 8:12] = 100
    added = on_grey([residual], [(16, 16)] * 12, step=4)
    places = {tuple(one[0].nonzero()[0].tolist()) for one in (a.round() for a in added)}
    assert len(places) > 4
    assert all(row % 4 == column % 4 == 0 for row, column in places)
    again = on_grey([residual], [(16, 16)] * 12, step=4)
    assert all(torch.equal(a, b) for a, b in zip(added, again, strict=True))
    other = on_grey([residual], [(16, 16)] * 12, step=4, seed=1)
    assert not all(torch.equal(a, b) for a, b in zip(added, other, strict=True))


def test_pictures_of_other_sizes_are_covered() -> None:
    residual = torch.full((3, 8, 6), 30.0)
    small, large = on_grey([residual], [(4, 5), (20, 13)])
    assert small.round().unique().tolist() == large.round().unique().tolist() == [30]
