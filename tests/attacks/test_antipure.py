"""AntiPure beside its terms written out: python -m pytest tests/attacks"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from naive import PROMPTS, agree, from_model, ours, pgd, photos, to_model
from torch import Tensor

from shortcut_lightning.attacks import AntiPure, antipure
from shortcut_lightning.attacks.antipure import high_energy
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers import Gaussian, GridPure, Jpeg, OptimalStep, SDEdit, sdedit
from shortcut_lightning.purifiers.diffusion import Space, space_of


def energy(images: Tensor) -> Tensor:
    """The cosine transform as a sum over pixels."""
    total, count = torch.zeros(()), 0
    for top in range(0, images.shape[-2] - 7, 8):
        for left in range(0, images.shape[-1] - 7, 8):
            patch = images[..., top : top + 8, left : left + 8]
            for v in range(4, 8):
                for u in range(4, 8):
                    wave = torch.tensor(
                        [
                            [
                                math.cos((2 * y + 1) * v * math.pi / 16)
                                * math.cos((2 * x + 1) * u * math.pi / 16)
                                for x in range(8)
                            ]
                            for y in range(8)
                        ]
                    )
                    total = total + ((patch * wave).sum((-1, -2)) / 4).square().sum()
                    count += patch.shape[0] * patch.shape[1]
    return total / count


def test_high_energy_is_that_of_the_cosine_transform() -> None:
    images = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(high_energy(images), energy(images), rtol=1e-4, atol=1e-6)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    assert high_energy(board.expand(1, 3, 16, 16).float()) > 0.2
    assert high_energy(torch.full((1, 3, 16, 16), 0.7)) < 1e-8


@pytest.mark.parametrize("kind", ["noise", "velocity"])
def test_against_the_terms_written_out(kind: str, request: pytest.FixtureRequest) -> None:
    model: Backbone = request.getfixturevalue(f"{kind}_model")
    g, x0 = torch.Generator().manual_seed(3), to_model(photos())
    nothing = model.embed([""] * 2)
    start = 2 * torch.rand(x0.shape, generator=g) - 1
    start = to_model((photos() + start * 5 / 255).clamp(0, 1))

    def noise_of(x: Tensor, t: int) -> Tensor:
        steps = torch.full((2,), t)
        return model.origin_and_noise(x, model.predict(x, steps, nothing), steps)[1]

    def objective(x: Tensor) -> Tensor:
        torch.randint(1, (), generator=g)  # the only window
        right = int(torch.randint(200, (), generator=g))
        wrong = int(torch.randint(1000, (), generator=g))
        z = model.encode(from_model(x)).mean
        e = torch.randn(z.shape, generator=g)
        abar = model.alphas[right]
        zt = abar**0.5 * z + (1 - abar) ** 0.5 * e
        found = noise_of(zt, right)
        clean = model.decode((zt - (1 - abar) ** 0.5 * found) / abar**0.5)
        apart = (noise_of(zt, wrong) - found).square().mean()
        return (e - found).square().mean() + 0.5 * energy(clean) - 0.25 * apart

    expected = pgd(x0, start, 2, 2 / 127.5, 5 / 127.5, objective)
    purifier = SDEdit(strength=0.2, prompt="", guidance_scale=1.0)
    attack = AntiPure(5, 2, 2, [purifier], timestep_weight=0.25)
    assert agree(ours(attack, model, photos()), from_model(expected), share=0.97)


def test_the_purifier_is_the_one_that_was_given(
    noise_model: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guidance away from words too."""
    asked = []

    def space_asked_for(*arguments: Any) -> Space:
        asked.append(arguments[4:])
        return space_of(*arguments)

    for module in (antipure, sdedit):
        monkeypatch.setattr(module, "space_of", space_asked_for)
    purifier = SDEdit(0.05, 1, prompt="a", guidance_scale=2.0, negative_prompt="noise")
    ours(AntiPure(5, 2, 1, [purifier]), noise_model, photos())
    purifier.run(photos(), noise_model, PROMPTS, torch.Generator())
    assert asked == [("a", 2.0, "noise")] * 2


def test_another_purifier_is_led_astray(noise_model: Backbone) -> None:
    """Further from the clean picture, and rougher, than by noise of the same size."""
    purifier, images = Gaussian(sigma=1.0), photos()
    attack = AntiPure(8, 2, 10, [purifier])

    def found(changed: Tensor) -> float:
        made = purifier.run(changed, noise_model, PROMPTS, torch.Generator())
        return float((made - images).square().mean() + 0.5 * high_energy(made))

    noise = 8 / 255 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).sign()
    assert found(ours(attack, noise_model, images)) > 2 * found((images + noise).clamp(0, 1))


def test_windows_of_a_pixel_model(noise_model: Backbone, tmp_path: Path) -> None:
    """Larger pictures are seen in parts, and all parts are reached."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path, safe_serialization=True)
    purifiers = [GridPure(pixel_model=str(tmp_path)), OptimalStep(pixel_model=str(tmp_path))]
    for purifier in purifiers:
        attack = AntiPure(8, 1, 12, [purifier])
        moved = (ours(attack, noise_model, photos()) - photos()).abs()
        assert (moved > 0).float().mean() > 0.95
        assert moved.max() * 255 <= 8.01


def test_what_hides_its_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="Jpeg has no useful gradient"):
        AntiPure(purifiers=[Jpeg()])
    with pytest.raises(ValueError, match=r"data\.attack\.purifiers is empty"):
        AntiPure(purifiers=[])
