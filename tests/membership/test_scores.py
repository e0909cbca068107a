"""Every score against a plain loop: pytest tests/membership/test_scores.py

The loops know nothing of batches, caches or sharing, and take the model apart by themselves.
"""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from plain_model import Plain
from torch import Tensor

from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership import (
    GSA,
    PFAMI,
    PFAMINN,
    PIA,
    CLiD,
    ComplexityCalibrated,
    GaussianNoise,
    GradientMasking,
    Loss,
    LossPeak,
    LossProfile,
    MonteCarlo,
    NoiseOptimization,
    NullOnly,
    ReDiffuse,
    Score,
    SecMI,
    SecMINNs,
    SimA,
)
from shortcut_lightning.membership.reducers import without
from shortcut_lightning.membership.roc import auc

Loop = Callable[[Plain], list[float]]


def secmi_loop(plain: Plain, t_sec: int) -> list[float]:
    def phi(x: Tensor, s: int, u: int) -> Tensor:
        e, here, there = plain.eps(x, s), float(plain.alphas[s]), float(plain.alphas[u])
        return there**0.5 * (x - (1 - here) ** 0.5 * e) / here**0.5 + (1 - there) ** 0.5 * e

    x = plain.z
    for s in range(0, t_sec - 10, 10):
        x = phi(x, s, s + 10)
    psi = phi(phi(x, t_sec - 10, t_sec), t_sec, t_sec - 10)
    return [-float((x - psi).square().sum())]


def pia_loop(plain: Plain, step: int, p: float, normalize: bool) -> list[float]:
    e0 = plain.eps(plain.z, 0)
    if normalize:
        e0 = e0 / e0.abs().mean() * (2 / np.pi) ** 0.5
    second = plain.eps(plain.noised(plain.z, e0, step), step)
    return [-float((e0 - second).abs().pow(p).sum())]


def crop(plain: Plain, strength: float) -> Tensor:
    side = int(32 * strength)
    corner = (32 - side) // 2
    middle = plain.image[None, :, corner : corner + side, corner : corner + side]
    resized = torch.nn.functional.interpolate(middle, (32, 32), mode="bilinear", antialias=True)
    return plain.encode(resized[0], f"crop {side}")


def pfami_relative_loop(plain: Plain) -> list[float]:
    moved, rises = crop(plain, np.linspace(0.95, 0.7, 10)[5]), []
    for step in range(0, 500, 50):
        noise = plain.noise_at(step)
        first, second = (
            (plain.eps(plain.noised(z, noise, step), step) - noise).square().mean()
            for z in (plain.z, moved)
        )
        rises.append(float((second - first) / first))
    return [np.mean(rises)]


def pfami_difference_loop(plain: Plain) -> list[float]:
    moved, rises = crop(plain, 0.825), []
    for step in range(1, 500, 50):
        first, second = (
            (plain.eps(plain.noised(z, noise, step), step) - noise).square().mean()
            for z, noise in (
                (plain.z, plain.noise("PFAMI image")),
                (moved, plain.noise("PFAMI neighbour")),
            )
        )
        rises.append(float(second - first))
    return [np.mean(rises)]


def clid_loop(plain: Plain, poorer: list[str]) -> list[float]:
    steps = (440, 450, 460)
    whole = np.mean([plain.mse(step) for step in steps])
    gaps = [np.mean([plain.mse(step, text) for step in steps]) - whole for text in [*poorer, ""]]
    return [whole, *gaps]


def thirds(caption: str) -> list[str]:
    n = len(caption)
    return [caption[: n // 3], caption[n // 3 : 2 * n // 3], caption[2 * n // 3 :]]


def gsa_loop(plain: Plain, every: bool) -> list[float]:
    steps = list(range(99, 1000, 100))
    losses = []
    weights = list(plain.model.unet.parameters())
    for step in steps:
        noise = plain.noise_at(step)
        losses.append((plain.eps(plain.noised(plain.z, noise, step), step) - noise).square().mean())
    groups = [[loss] for loss in losses] if every else [losses]
    norms = torch.stack(
        [
            torch.stack(
                [
                    g.norm()
                    for g in torch.autograd.grad(
                        torch.stack(group).mean(), weights, retain_graph=True
                    )
                ]
            )
            for group in groups
        ]
    ).mean(0)
    return [-float(norms.mean()), *norms.tolist()]


def rediffuse_loop(plain: Plain) -> list[float]:
    from torchmetrics.functional.image import structural_similarity_index_measure

    a = float(plain.alphas[50])
    last = float(plain.alphas[0])
    noise = plain.noise_at(50)
    x = plain.noised(plain.z, noise, 50)
    e = plain.eps(x, 50)
    x = last**0.5 * (x - (1 - a) ** 0.5 * e) / a**0.5 + (1 - last) ** 0.5 * e
    rebuilt = (plain.model.vae.decode(x / 0.18215).sample / 2 + 0.5).clamp(0, 1)
    return [float(structural_similarity_index_measure(rebuilt, plain.image[None], data_range=1.0))]


def masking_loop(plain: Plain, step: int) -> list[float]:
    """The fifth of x_t with the largest gradients becomes noise; the loss there."""
    noise = plain.noise_at(step)
    x = plain.noised(plain.z, noise, step).detach().requires_grad_()
    loss = (plain.eps(x, step) - noise).square().mean()
    size = torch.autograd.grad(loss, x)[0].abs().flatten()
    places = size.argsort(descending=True)[: round(0.2 * len(size))]
    holed = x.detach().flatten().clone()
    holed[places] = noise.flatten()[places]
    with torch.no_grad():
        error = (plain.eps(holed.view_as(x), step) - noise).flatten()[places]
    return [-float(error.square().mean())] * 2


def multi(plain: Plain) -> list[float]:
    losses = [-plain.mse(step) for step in (0, 500)]
    return [np.mean(losses), *losses]


def complexity_loop(plain: Plain) -> list[float]:
    """|mean of the errors of three noises|^2 over the bytes of the picture's file."""
    errors = [
        plain.eps(plain.noised(plain.z, plain.noise_at(350, r), 350), 350) - plain.noise_at(350, r)
        for r in range(3)
    ]
    error = float((sum(errors) / 3).square().sum())
    levels = (plain.image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    size = len(file.getvalue())
    return [-error / size, -error, size]


CASES: dict[str, tuple[Score, Loop, float]] = {
    "loss": (Loss(), lambda p: [-p.mse(450)], 1e-5),
    "loss, three noises": (
        Loss(100, 3),
        lambda p: [-np.mean([p.mse(100, repeat=r) for r in range(3)])],
        1e-5,
    ),
    "complexity": (ComplexityCalibrated(draws=3), complexity_loop, 1e-4),
    "peak": (LossPeak([0, 500]), multi, 1e-5),
    "profile": (LossProfile([0, 500]), multi, 1e-5),
    "monte carlo": (MonteCarlo(), lambda p: [-np.mean([p.mse(t) for t in (440, 450, 460)])], 1e-5),
    "secmi, pixel form": (SecMI(100), lambda p: secmi_loop(p, 100), 1e-3),
    "secmi, latent form": (SecMI(150), lambda p: secmi_loop(p, 150), 1e-3),
    "pia": (PIA(), lambda p: pia_loop(p, 200, 4, False), 1e-4),
    "pian": (PIA([200], 5, True), lambda p: pia_loop(p, 200, 5, True), 1e-4),
    "sima": (SimA(), lambda p: [-float(p.eps(p.z, 100).pow(4).sum())], 1e-5),
    "sima without captions": (
        SimA([0, 50], use_caption=False),
        lambda p: [-float(p.eps(p.z, t, "").pow(4).sum()) for t in (0, 50)],
        1e-5,
    ),
    "pfami relative": (PFAMI(), pfami_relative_loop, 1e-4),
    "pfami difference": (PFAMI("difference"), pfami_difference_loop, 1e-4),
    "clid simple": (CLiD(), lambda p: clid_loop(p, thirds(p.caption)), 1e-5),
    "clid null": (CLiD(NullOnly()), lambda p: clid_loop(p, []), 1e-5),
    "gsa 1": (GSA(), lambda p: gsa_loop(p, False), 1e-3),
    "gsa 2": (GSA("every_timestep"), lambda p: gsa_loop(p, True), 1e-3),
    "gradient masking": (GradientMasking([300]), lambda p: masking_loop(p, 300), 1e-4),
    "rediffuse": (ReDiffuse(), rediffuse_loop, 1e-4),
}


@pytest.mark.parametrize("name", CASES)
def test_a_score_is_its_equation(
    name: str, epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    score, loop, tolerance = CASES[name]
    # A batch size that divides nothing: rows of several jobs share calls, others are cut apart.
    ours = score(images[:2], captions[:2], epsilon_model, batch_size=7)
    context = torch.enable_grad() if score.access == "white-box" else torch.no_grad()
    with context:
        plain = [loop(Plain(epsilon_model, *pair)) for pair in zip(images[:2], captions)]  # noqa: B905
    assert ours.shape == (2, len(plain[0]))
    torch.testing.assert_close(ours, torch.tensor(plain).double(), rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("name", ["loss", "secmi, pixel form", "pia", "clid simple", "gsa 1"])
def test_velocity_models_are_compared_in_noise_space(
    name: str, velocity_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    score, loop, tolerance = CASES[name]
    ours = score(images[:2], captions[:2], velocity_model)
    context = torch.enable_grad() if score.access == "white-box" else torch.no_grad()
    with context:
        plain = [loop(Plain(velocity_model, *pair)) for pair in zip(images[:2], captions)]  # noqa: B905
    torch.testing.assert_close(ours, torch.tensor(plain).double(), rtol=tolerance, atol=1e-6)


def test_noise_optimisation_goes_down_and_says_how_far(
    epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    reached = NoiseOptimization()(images, captions, epsilon_model)
    further = NoiseOptimization(iterations=15)(images, captions, epsilon_model)
    start = Loss(100)(images, captions, epsilon_model)
    assert (reached[:, 0] > start[:, 0]).all()
    assert (further[:, 0] > reached[:, 0]).all()
    assert (reached[:, 1] < 0).all()


def test_secmi_maps_sum_to_the_score(
    epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    maps = SecMINNs()(images[:2], captions[:2], epsilon_model)
    statistic = SecMI()(images[:2], captions[:2], epsilon_model)
    assert maps[:, 1:4].tolist() == [[4, 8, 8]] * 2
    torch.testing.assert_close(-maps[:, 4:].square().sum(1), statistic[:, 0], rtol=1e-5, atol=0)


def test_secmi_is_a_difference_of_neighbouring_predictions(
    epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    maps = SecMINNs()(images[:2], captions[:2], epsilon_model)[:, 4:]
    for row, (image, caption) in enumerate(zip(images[:2], captions[:2], strict=True)):
        plain = Plain(epsilon_model, image, caption)
        roots = plain.alphas.sqrt(), (1 - plain.alphas).sqrt()
        x = plain.z.double()
        with torch.no_grad():
            for s in range(0, 100, 10):
                first = plain.eps(x.float(), s).double()
                clean = (x - roots[1][s] * first) / roots[0][s]
                x = roots[0][s + 10] * clean + roots[1][s + 10] * first
            second = plain.eps(x.float(), 100).double()
        constant = roots[0][90] * roots[1][100] / roots[0][100] - roots[1][90]
        expected = (constant * (second - first)).abs().flatten()
        assert (maps[row] - expected).norm() < 1e-4 * expected.norm()


def test_pfami_map_holds_the_published_strength(
    epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    rises = PFAMINN()(images[:1], captions[:1], epsilon_model)[:, 4:].view(1, 10, 10)
    statistic = PFAMI()(images[:1], captions[:1], epsilon_model)
    torch.testing.assert_close(rises[:, :, 5].mean(1), statistic[:, 0], rtol=1e-4, atol=1e-6)


def test_learned_maps_are_learned() -> None:
    """A ResNet tells maps apart that differ in one corner, and gives the same logits twice."""
    rng = np.random.default_rng(0)

    def rows(bright: float) -> np.ndarray:
        maps = rng.normal(size=(24, 1, 8, 8))
        maps[:, :, :4, :4] += bright
        flat = maps.reshape(24, -1)
        return np.concatenate([flat.mean(1, keepdims=True), np.tile([1, 8, 8], (24, 1)), flat], 1)

    inside, outside = rows(2.0), rows(0.0)
    first, second = (SecMINNs(epochs=1).fit(inside, outside, seed=3) for _ in range(2))
    assert np.array_equal(first(inside), second(inside))
    learned = SecMINNs(epochs=8, learning_rate=0.01, batch_size=12).fit(inside, outside)
    assert auc(learned(rows(2.0)), learned(rows(0.0))) > 0.9


def test_gaussian_reduction_adds_the_said_noise(
    epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    features = CLiD(GaussianNoise([0.0, 0.7]))(images, captions, epsilon_model)
    assert features[:, 1].abs().max() < 1e-7  # no noise, same caption, no discrepancy
    assert features[:, 2].abs().min() > 1e-9


@pytest.mark.parametrize(
    ("words", "rate", "gone"),
    [(3, 0.3, 1), (4, 0.3, 2), (4, 0.5, 2), (4, 0.7, 3), (10, 0.3, 3), (1, 0.7, 1)],
)
def test_importance_takes_as_many_words_as_published(words: int, rate: float, gone: int) -> None:
    caption = " ".join(f"w{i}" for i in range(words))
    weights = [float(words - i) for i in range(words)]
    reduced = without(caption, weights, rate).split()
    assert reduced == ["<|endoftext|>"] * gone + [f"w{i}" for i in range(gone, words)]


def test_the_peak_is_chosen_on_the_shadow() -> None:
    rng = np.random.default_rng(0)
    members, holdouts = rng.normal(size=(2, 40, 4))
    members[:, 2] += 2  # of [mean, t0, t100, t200]
    rule = LossPeak([0, 100, 200]).fit(members, holdouts)
    assert np.array_equal(rule(holdouts), holdouts[:, 2])
