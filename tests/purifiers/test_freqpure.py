"""FreqPure beside its arithmetic written out: python -m pytest tests/purifiers"""

import cmath
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.purifiers import FreqPure

IMAGES = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 255
CAPTIONS = ["a photo of sks person", "a dog"]


@pytest.fixture(scope="module")
def backbone(small_sd: Path) -> Backbone:
    return backbones.load(str(small_sd))


def by_hand(made: Tensor, given: Tensor, cut: float, phase_cut: float, delta: float) -> Tensor:
    """One coefficient at a time, in plain complex numbers."""
    out = torch.zeros_like(made)
    rows, columns = made.shape[-2:]
    for picture in range(len(made)):
        for channel in range(made.shape[1]):
            ours, theirs = (np.fft.fft2(x[picture, channel].numpy()) for x in (made, given))
            for v in range(rows):
                for u in range(columns):
                    y, x = (n if 2 * n <= m else n - m for n, m in ((v, rows), (u, columns)))
                    amplitude, angle = abs(ours[v, u]), cmath.phase(ours[v, u])
                    if math.hypot(x, y) <= cut:
                        amplitude = abs(theirs[v, u])
                    if math.hypot(x, y) <= phase_cut:
                        wanted = cmath.phase(theirs[v, u])
                        turn = (angle - wanted + math.pi) % (2 * math.pi) - math.pi
                        angle = wanted + max(-delta, min(delta, turn))
                    ours[v, u] = cmath.rect(amplitude, angle)
            out[picture, channel] = torch.from_numpy(np.fft.ifft2(ours).real).float()
    return out


@pytest.mark.parametrize(("cut", "phase_cut"), [(3.0, 2.0), (1.5, 4.0)])
def test_frequencies_are_exchanged(cut: float, phase_cut: float) -> None:
    made, given = torch.rand(2, 2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    purifier = FreqPure(amplitude_cut=cut, phase_cut=phase_cut, delta=0.4)
    ours = purifier.exchanged(made, given)
    torch.testing.assert_close(
        ours, by_hand(made, given, cut, phase_cut, 0.4), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(ours, made, atol=1e-2)


def test_all_of_them_or_none() -> None:
    made, given = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    all_of_them = FreqPure(amplitude_cut=99, phase_cut=99, copy_phase=True)
    torch.testing.assert_close(all_of_them.exchanged(made, given), given, rtol=1e-4, atol=1e-5)
    free = FreqPure(amplitude_cut=99, phase_cut=99, delta=3.14159)
    far = free.exchanged(made, given)
    turned = torch.fft.fft2(far) * torch.fft.fft2(made).conj()
    assert (turned.angle().abs() < 1e-3).float().mean() > 0.9  # amplitudes alone were taken
    flat = torch.zeros(1, 3, 8, 8, requires_grad=True)
    FreqPure().exchanged(flat, flat.detach()).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("space", ["pixels", "latents"])
@torch.no_grad()
def test_the_walk_is_ddpm_with_the_exchange(space: Any, backbone: Backbone) -> None:
    purifier = FreqPure(0.01, 0, 3, 3, 0.3, reference=20, space=space)
    ours = purifier.run(IMAGES, backbone, CAPTIONS, torch.Generator().manual_seed(7))
    scheduler: Any = DDPMScheduler.from_config(backbone.scheduler.config, clip_sample=False)
    alphas, chance = scheduler.alphas_cumprod, torch.Generator().manual_seed(7)
    nothing = backbone.embed([""] * 2)
    latents = backbone.encode(IMAGES).mean

    def draw() -> Tensor:
        return torch.randn(latents.shape, generator=chance)

    def predicted(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        noise = backbone.predict(x, torch.full((2,), t), nothing)
        return (x - (1 - alphas[t]).sqrt() * noise) / alphas[t].sqrt(), noise

    x = scheduler.add_noise(latents, draw(), torch.tensor(9))
    for t in range(9, -1, -1):
        clean, noise = predicted(x, t)
        given, _ = predicted(scheduler.add_noise(latents, draw(), torch.tensor(20)), 20)
        if space == "pixels":
            parts = [backbone.decode(each) for each in (clean, given)]
            clean = backbone.encode(by_hand(*parts, 3, 3, 0.3).clamp(0, 1)).mean
        else:
            clean = by_hand(clean, given, 3, 3, 0.3)
        before = alphas[t - 1] if t else torch.tensor(1.0)
        variance = (1 - before) / (1 - alphas[t]) * (1 - alphas[t] / before)
        x = before.sqrt() * clean + (1 - before - variance).clamp(min=0).sqrt() * noise
        if t:
            x = x + variance.sqrt() * draw()
    error = (ours - backbone.decode(x)).abs().mean()
    free = FreqPure(0.01, 0, 0, 0, reference=20, space=space)
    effect = (ours - free.run(IMAGES, backbone, CAPTIONS, torch.Generator().manual_seed(7))).abs()
    assert error < 0.05 * effect.mean()


def test_latents_of_a_pixel_model_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.purifiers\.space is 'latents'"):
        FreqPure(space="latents", pixel_model="somewhere")
