"""PGD against its naive loop: python -m pytest tests/attacks"""

import torch
from torch import Tensor

from shortcut_lightning.attacks.pgd import project, random_start, sign_pgd


def naive_pgd(
    clean: list[float], steps: list[float], epsilon: float, weights: list[float]
) -> Tensor:
    """Number by number, in /255, for the loss sum_i w_i x_i^2: gradient 2 w_i x_i."""
    out = []
    for value, weight in zip(clean, weights, strict=True):
        x = value
        for step in steps:
            gradient = 2 * weight * x
            x += step * ((gradient > 0) - (gradient < 0))
            x = min(max(x, value - epsilon), value + epsilon)
            x = min(max(x, 0.0), 255.0)
        out.append(x)
    return torch.tensor(out)


def test_equals_the_naive_loop() -> None:
    clean = [0.0, 1.0, 3.0, 100.0, 128.0, 252.0, 255.0, 200.0]
    weights = [1.0, -1.0, 2.0, -0.5, 1.0, 1.0, -1.0, 0.0]
    images = (torch.tensor(clean) / 255).reshape(2, 1, 2, 2)
    w = torch.tensor(weights).reshape(2, 1, 2, 2)
    steps = [2.55, 2.0, 1.1, 0.3]
    for ascending in (True, False):
        got = sign_pgd(
            images,
            lambda x: (w * x**2).sum(),
            epsilon=5.0,
            step_sizes=steps,
            ascending=ascending,
            generator=torch.Generator(),
        )
        sign = 1 if ascending else -1
        expected = naive_pgd(clean, steps, 5.0, [sign * weight for weight in weights])
        torch.testing.assert_close(got.flatten() * 255, expected, atol=1e-3, rtol=0)


def test_a_mean_over_images_keeps_them_independent() -> None:
    images = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def loss(x: Tensor) -> Tensor:
        return (x.sin() * x).flatten(1).norm(dim=1).mean()

    together, alone = (
        sign_pgd(
            some,
            loss,
            epsilon=4,
            step_sizes=[1.0] * 3,
            ascending=True,
            generator=torch.Generator(),
        )
        for some in (images, images[1:2])
    )
    assert torch.equal(together[1:2], alone)


def test_starts_inside_the_ball_and_uses_it() -> None:
    clean = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    start = random_start(clean, 8, torch.Generator().manual_seed(1))
    distance = (start - clean) * 255
    assert distance.abs().max() <= 8 + 1e-3
    assert distance.max() > 7
    assert distance.min() < -7
    assert start.min() >= 0
    assert start.max() <= 1
    assert torch.equal(project(start, clean, 8), start)
