"""The wrapper that blurs: python -m pytest tests/attacks"""

import math

import pytest
import torch
from naive import PROMPTS, agree, ours, photos
from torch import Tensor

from shortcut_lightning.attacks import (
    EASPL,
    Adaptive,
    AdvDM,
    AntiPure,
    Attack,
    BlurGuard,
    MetaCloak,
    NoAttack,
)
from shortcut_lightning.attacks.base import SoundnessWarning
from shortcut_lightning.attacks.blurguard import View, blurred, seen_through, spectrum
from shortcut_lightning.attacks.denoising import eps_loss
from shortcut_lightning.attacks.pgd import gradient, sign_step
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers import Jpeg


def test_each_region_is_blurred_by_its_own_width() -> None:
    """Against a sum over all places, with weights written out."""
    raw = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([[0.5, 1.0, 2.0, 0.8], [1.5, 0.3, 0.6, 1.1]])
    made = blurred(raw, sigmas, 2)
    taps, height, width = 7, 8, 12  # the farthest that mirrored edges of eight rows allow

    def mirrored(place: int, length: int) -> int:
        return abs(place) if place < length else 2 * (length - 1) - place

    for picture, y, x in [(0, 1, 1), (0, 1, 7), (1, 6, 2), (1, 7, 11)]:
        sigma = float(sigmas[picture, 2 * (y * 2 // height) + x * 2 // width])
        total, weights = torch.zeros(3), 0.0
        for dy in range(-taps, taps + 1):
            for dx in range(-taps, taps + 1):
                weight = math.exp(-(dy**2 + dx**2) / (2 * sigma**2))
                weights += weight
                total += weight * raw[picture, :, mirrored(y + dy, height), mirrored(x + dx, width)]
        torch.testing.assert_close(made[picture, :, y, x], total / weights, rtol=1e-3, atol=1e-4)


def test_the_spectrum_is_by_distance_from_zero() -> None:
    rows = torch.arange(16).float()
    wave = 0.5 + 0.3 * torch.cos(2 * math.pi * 3 * rows / 16)
    power = 10 ** spectrum(wave.expand(1, 3, 16, 16))[0]
    assert power.argmax() == 0
    assert power[1:].argmax() + 1 == 3
    assert power[4:].max() < 1e-4 * power[3]


def test_widths_make_noise_follow_the_picture(noise_model: Backbone) -> None:
    """Smooth pictures have no power where noise has its own, so the blur must grow."""
    images = photos(side=64)
    attack = BlurGuard(16, NoAttack(), grid=2)
    widths = attack._widths(images, torch.Generator().manual_seed(0))
    assert widths.shape == (2, 4)
    assert (widths > 1.5).all()
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)) * 16 / 255

    def apart(changed: Tensor) -> float:
        return float((spectrum(changed) - spectrum(images)).abs().amax(1).mean())

    assert apart(images + blurred(noise, widths, 2)) < 0.7 * apart(images + noise)
    alone = attack._widths(images[:1], torch.Generator().manual_seed(0))
    untouched = BlurGuard(16, NoAttack(), grid=2, tolerance=9.0)
    assert torch.equal(untouched._widths(images, torch.Generator()), torch.ones(2, 4))
    assert alone.shape == (1, 4)


def test_the_attack_climbs_the_loss_of_what_is_published(noise_model: Backbone) -> None:
    """The naive form: gradient of the loss of the clean picture and the cut, blurred rest."""
    images, g = photos(), torch.Generator().manual_seed(3)
    inner = AdvDM(5, step_size=2, steps=3, start_randomly=False)
    attack = BlurGuard(6, inner, raw_epsilon=20, grid=2, sigma_steps=0)
    conditioning, sigmas = noise_model.embed(PROMPTS), torch.ones(2, 4)

    def published(raw: Tensor) -> Tensor:
        return images + blurred(raw - images, sigmas, 2).clamp(-6 / 255, 6 / 255)

    raw = images
    for _ in range(3):
        slope, _ = gradient(raw, lambda x: eps_loss(noise_model, published(x), conditioning, g))
        raw = sign_step(raw, images, slope, epsilon=20, size=2, ascending=True)
    assert agree(ours(attack, noise_model, images), published(raw))
    assert "encode" not in vars(noise_model)
    assert inner.epsilon == 5


def test_a_model_sees_known_pictures_and_their_mirror_images_so(noise_model: Backbone) -> None:
    clean = photos()
    near = (clean + 3 / 255).clamp(0, 1)
    view = View(clean, 11, lambda raw, rows: raw * 0)
    with seen_through(noise_model, view):
        seen = noise_model.encode(torch.cat([near.flip(-1), near[1:], 1 - clean])).mean
    expected = noise_model.encode(torch.cat([clean.flip(-1), clean[1:], 1 - clean])).mean
    torch.testing.assert_close(seen, expected)
    assert view.used == 3


class Elsewhere(Attack):
    """Shows nothing to the model."""

    def run(self, images: Tensor, *_: object) -> Tensor:
        return images + 9 / 255


def test_what_is_blurred_only_in_the_end_is_doubted(noise_model: Backbone) -> None:
    with pytest.warns(SoundnessWarning, match="Elsewhere shows no model"):
        ours(BlurGuard(6, Elsewhere(), sigma_steps=1), noise_model, photos())
    with pytest.raises(ValueError, match=r"data\.attack\.attack is BlurGuard itself"):
        BlurGuard(6, BlurGuard())


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (
            Adaptive(purifiers=[Jpeg()]),
            r"Adaptive with purifiers, .* before the blur, .* as AdvDM\.$",
        ),
        (AntiPure(), r"AntiPure with purifiers"),
        (EASPL(surrogates=["", "pocket"]), r"EASPL with surrogates of its own \(pocket\).* ASPL"),
        (MetaCloak(), r"MetaCloak, .* its own blur, .* as ASPL\.$"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_attacks_that_would_see_what_is_not_published_are_refused(
    inner: Attack, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"data\.attack\.attack is {reason}"):
        BlurGuard(6, inner)


def test_attacks_whose_loss_sees_the_blur_are_not_refused() -> None:
    for inner in (Adaptive(), EASPL(), EASPL(surrogates=["", ""])):
        assert BlurGuard(6, inner).attack is inner
