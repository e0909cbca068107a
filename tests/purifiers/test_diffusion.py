"""Diffusion purifiers against plain loops: python -m pytest tests/purifiers/test_diffusion.py"""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from fake_model import FakeBackbone
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.purifiers import GridPure, OptimalStep, Purifier, SDEdit
from shortcut_lightning.purifiers.diffusion import timesteps
from shortcut_lightning.purifiers.optimal_step import optimal_timestep
from shortcut_lightning.purifiers.resampling import resized
from shortcut_lightning.purifiers.windows import starts, windows

IMAGES = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 255
SMALL = IMAGES[..., :16, :16]  # the pixel model's size
CAPTIONS = ["a photo of sks person", "a dog"]
LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000), 0)  # the schedule of pixel models


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def backbone(request: pytest.FixtureRequest, small_sd: Path, small_sd_v: Path) -> Backbone:
    return backbones.load(str(small_sd if request.param == "epsilon" else small_sd_v))


@pytest.fixture(scope="module")
def pixel_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An unconditional pixel model with random weights and channels for the variance."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=16,
        out_channels=6,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    folder = tmp_path_factory.mktemp("pixel")
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(folder, safe_serialization=True)
    return str(folder)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def purified(purifier: Purifier, backbone: Backbone, images: Tensor = IMAGES) -> Tensor:
    return purifier(images, backbone, CAPTIONS[: len(images)], generator=seeded())


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal but for rounding to 8 bits."""
    assert (ours - theirs.clamp(0, 1)).abs().max() <= 0.51 / 255 + 1e-4


@torch.no_grad()
def guided(backbone: Backbone, prompt: str, scale: float, x: Tensor, t: int) -> Tensor:
    steps = torch.full((len(x),), t)
    without = backbone.predict(x, steps, backbone.embed([""] * len(x)))
    told = backbone.predict(x, steps, backbone.embed([prompt] * len(x)))
    return without + scale * (told - without)


@torch.no_grad()
def test_every_timestep_with_noise_is_ddpm(backbone: Backbone) -> None:
    prompt = "a photo of a person, clear"
    ours = purified(SDEdit(strength=0.012, prompt=prompt, guidance_scale=3.0), backbone)
    scheduler: Any = DDPMScheduler.from_config(backbone.scheduler.config, clip_sample=False)
    chance = seeded()
    latents = backbone.encode(IMAGES).mean
    noise = torch.randn(latents.shape, generator=chance)
    x = scheduler.add_noise(latents, noise, torch.tensor(11))
    for t in range(11, -1, -1):
        output = guided(backbone, prompt, 3.0, x, t)
        x = scheduler.step(output, t, x, generator=chance).prev_sample
    close(ours, backbone.decode(x))


@torch.no_grad()
def test_few_timesteps_without_noise_is_ddim(backbone: Backbone) -> None:
    purifier = SDEdit(strength=0.301, steps=4, eta=0.0, prompt="", guidance_scale=1.0)
    scheduler: Any = DDIMScheduler.from_config(backbone.scheduler.config)
    latents = backbone.encode(IMAGES).mean
    x = scheduler.add_noise(
        latents, torch.randn(latents.shape, generator=seeded()), torch.tensor(300)
    )
    alphas = torch.cat([scheduler.alphas_cumprod, torch.ones(1)])
    for t, later in [(300, 200), (200, 100), (100, 0), (0, -1)]:
        output = guided(backbone, "", 1.0, x, t)
        a, b = alphas[t], alphas[later]
        if backbone.prediction_type == "epsilon":
            clean, noise = (x - (1 - a).sqrt() * output) / a.sqrt(), output
        else:
            clean = a.sqrt() * x - (1 - a).sqrt() * output
            noise = a.sqrt() * output + (1 - a).sqrt() * x
        x = b.sqrt() * clean + (1 - b).sqrt() * noise
    close(purified(purifier, backbone), backbone.decode(x))


@torch.no_grad()
def test_pixel_models_walk_in_pixels(pixel_model: str, backbone: Backbone) -> None:
    ours = purified(SDEdit(strength=0.01, pixel_model=pixel_model), backbone, SMALL)
    pipeline = DDPMPipeline.from_pretrained(pixel_model)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    chance = seeded()
    x = scheduler.add_noise(
        2 * SMALL - 1, torch.randn(SMALL.shape, generator=chance), torch.tensor(9)
    )
    for t in range(9, -1, -1):
        output = pipeline.unet(x, t).sample[:, :3]
        x = scheduler.step(output, t, x, generator=chance).prev_sample
    close(ours, (x + 1) / 2)


@torch.no_grad()
def test_pixel_models_see_windows_of_their_size(pixel_model: str, backbone: Backbone) -> None:
    purifier = SDEdit(strength=0.003, pixel_model=pixel_model)
    images, chance = IMAGES[..., :24], seeded()
    total, count = torch.zeros_like(images), torch.zeros_like(images)
    for i in (0, 8, 16):
        for j in (0, 8):
            window = images[..., i : i + 16, j : j + 16]
            total[..., i : i + 16, j : j + 16] += purifier.run(window, backbone, CAPTIONS, chance)
            count[..., i : i + 16, j : j + 16] += 1
    assert count.max() == 4
    close(purified(purifier, backbone, images), total / count)


@torch.no_grad()
def test_optimal_step_resizes_to_a_pixel_model(pixel_model: str, backbone: Backbone) -> None:
    purifier = OptimalStep(epsilon=4, pixel_model=pixel_model)
    small = purifier.run(resized(IMAGES, (16, 16)), backbone, CAPTIONS, seeded())
    close(purified(purifier, backbone), resized(small, (32, 32)))


def test_timesteps_end_at_zero() -> None:
    assert timesteps(5, 0) == [5, 4, 3, 2, 1, 0]
    assert timesteps(300, 4) == [300, 200, 100, 0]
    assert timesteps(3, 10) == [3, 2, 1, 0]
    assert timesteps(7, 1) == [7]


@pytest.mark.parametrize(("r", "step"), [(4, 2), (8, 6), (11, 10), (16, 16)])
def test_optimal_step_of_published_budgets(r: int, step: int) -> None:
    assert optimal_timestep(LINEAR, r / 255) + 1 == step  # as published, of data in [0, 1]


@pytest.mark.parametrize(("r", "step"), [(11, 23), (16, 35)])
def test_optimal_step_of_data_in_both_signs(r: int, step: int) -> None:
    assert optimal_timestep(LINEAR, 2 * r / 255) + 1 == step


@torch.no_grad()
def test_optimal_step_is_ddpm_from_there(pixel_model: str, backbone: Backbone) -> None:
    ours = purified(OptimalStep(epsilon=4, pixel_model=pixel_model), backbone, SMALL)
    start = optimal_timestep(LINEAR, 8 / 255)
    walk = SDEdit(strength=(start + 1) / 1000, pixel_model=pixel_model)
    assert torch.equal(ours, purified(walk, backbone, SMALL))


@torch.no_grad()
def test_gridpure_is_its_plain_loop(pixel_model: str, backbone: Backbone) -> None:
    settings = {"strength": 0.003, "iterations": 2, "gamma": 0.1, "window": 16}
    ours = purified(GridPure(**settings, pixel_model=pixel_model), backbone, IMAGES[:1])
    unet = DDPMPipeline.from_pretrained(pixel_model).unet
    scheduler, chance, x = DDPMScheduler(), seeded(), IMAGES[:1]

    def pure(window: Tensor) -> Tensor:
        y = scheduler.add_noise(
            2 * window - 1, torch.randn(window.shape, generator=chance), torch.tensor(2)
        )
        for t in (2, 1, 0):
            y = scheduler.step(unet(y, t).sample[:, :3], t, y, generator=chance).prev_sample
        return (y + 1) / 2

    for _ in range(2):
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for i in (0, 8, 16):
            for j in (0, 8, 16):
                total[..., i : i + 16, j : j + 16] += pure(x[..., i : i + 16, j : j + 16])
                count[..., i : i + 16, j : j + 16] += 1
        top = torch.cat([x[..., :8, :8], x[..., :8, 24:]], dim=-1)
        bottom = torch.cat([x[..., 24:, :8], x[..., 24:, 24:]], dim=-1)
        patch = pure(torch.cat([top, bottom], dim=-2))
        total[..., :8, :8] += patch[..., :8, :8]
        total[..., :8, 24:] += patch[..., :8, 8:]
        total[..., 24:, :8] += patch[..., 8:, :8]
        total[..., 24:, 24:] += patch[..., 8:, 8:]
        for rows in (slice(0, 8), slice(24, 32)):
            for columns in (slice(0, 8), slice(24, 32)):
                count[..., rows, columns] += 1
        x = (0.9 * total / count + 0.1 * x).clamp(0, 1)
    close(ours, x)


def test_windows_cover_the_picture() -> None:
    assert starts(512, 256) == [0, 128, 256]
    assert starts(300, 128) == [0, 64, 128, 172]
    assert starts(64, 256) == [0]
    seen = torch.zeros(1, 1, 40, 56)
    for place in windows(40, 56, 16):
        seen[place] += 1
    assert seen.min() >= 1


@pytest.mark.parametrize("purifier", [SDEdit(0.3, steps=2), OptimalStep(), GridPure(iterations=1)])
def test_gradients_reach_the_images(purifier: Purifier) -> None:
    assert purifier.random
    assert purifier.differentiable
    images = IMAGES.clone().requires_grad_()
    out = purifier.run(images, FakeBackbone().eval(), CAPTIONS, seeded())
    out.square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SDEdit(strength=0), r"SDEdit\.strength is 0; it must be above 0 and at most 1"),
        (lambda: SDEdit(eta=2), "eta is 2"),
        (lambda: OptimalStep(epsilon=0), "epsilon is 0"),
        (lambda: GridPure(gamma=1), r"GridPure\.gamma is 1; it must be at least 0 and below 1"),
        (
            lambda: purified(GridPure(window=64), FakeBackbone()),
            "window is 64 px and the image's shorter side 32 px",
        ),
        (
            lambda: purified(SDEdit(pixel_model="/no/such/model"), FakeBackbone()),
            "Cannot load the pixel diffusion model '/no/such/model'",
        ),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
