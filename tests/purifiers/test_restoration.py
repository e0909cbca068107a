"""Purifiers with a network or an optimisation: python -m pytest tests/purifiers"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from fake_model import FakeBackbone
from PIL import Image
from scipy.optimize import minimize
from torch import Tensor, nn

from shortcut_lightning.pocket import networks
from shortcut_lightning.purifiers import (
    ExternalRestoration,
    GaussianNoise,
    Impress,
    Oracle,
    PocketRestoration,
    Purifier,
    Swin2SR,
    TotalVariation,
    Upscaler,
)
from shortcut_lightning.purifiers.impress import dissimilarity
from shortcut_lightning.purifiers.resampling import resized
from shortcut_lightning.purifiers.total_variation import minimise

IMAGES = torch.randint(256, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0)) / 255


def purified(purifier: Purifier, images: Tensor = IMAGES, seed: int = 0) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    return purifier(images, FakeBackbone(), ["a photo"] * len(images), generator=chance)


def test_noise_is_gaussian_and_of_the_given_size() -> None:
    grey = torch.full((1, 3, 64, 64), 128 / 255)
    noise = purified(GaussianNoise(0.05), grey) - grey
    assert abs(noise.std() - 0.05) < 0.002
    assert abs(noise.mean()) < 0.002
    assert not torch.equal(purified(GaussianNoise()), purified(GaussianNoise(), seed=1))


@pytest.mark.parametrize("weight", [0.01, 0.1])
def test_total_variation_is_minimal(weight: float) -> None:
    """Held against a quasi-Newton method on the same objective with its corners rounded."""
    chance = torch.Generator().manual_seed(1)
    given = torch.rand(1, 3, 5, 4, generator=chance, dtype=torch.float64)
    kept = (torch.rand(given.shape, generator=chance) > 0.2).double()
    tiny = 1e-10

    def objective(z: Tensor) -> Tensor:
        data = ((kept * (z - given)).square().sum() + tiny).sqrt()
        variation = sum((z.diff(dim=d).square() + tiny).sqrt().sum() for d in (-2, -1))
        return data + weight * variation

    def both(flat: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(flat.reshape(given.shape)).requires_grad_()
        value = objective(z)
        value.backward()
        assert z.grad is not None
        return value.item(), z.grad.numpy().ravel()

    start = given.numpy().ravel() + 1e-3
    best = minimize(both, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000}).fun
    ours = objective(minimise(given, kept, weight, 3000)).item()
    assert ours <= best * 1.002


def test_total_variation_flattens_noise_and_keeps_an_edge() -> None:
    picture = torch.full((1, 3, 32, 32), 60 / 255)
    picture[..., 16:] = 200 / 255
    chance = torch.Generator().manual_seed(0)
    noisy = (picture + 0.03 * torch.randn(picture.shape, generator=chance)).clamp(0, 1)
    out = purified(TotalVariation(0.05), noisy)
    assert (out - picture).abs().mean() < 0.3 * (noisy - picture).abs().mean()
    assert (out[..., 17] - out[..., 14]).mean() > 0.45


def test_total_variation_shows_an_attack_the_way() -> None:
    """A step along its gradient moves the result further than one that takes it for the identity
    (BPDA) does, in the direction that is asked for."""
    chance = torch.Generator().manual_seed(0)
    given = 0.4 + 0.2 * torch.rand(1, 3, 16, 16, generator=chance, dtype=torch.float64)
    wanted = torch.randn(given.shape, generator=chance, dtype=torch.float64)
    kept = torch.ones_like(given)

    def reached(images: Tensor) -> Tensor:
        return (minimise(images, kept, 0.05, 300) * wanted).sum()

    (slope,) = torch.autograd.grad(reached(given.requires_grad_()), given)
    assert slope.isfinite().all()
    with torch.no_grad():
        start = reached(given)
        along = reached(given + 4 / 255 * slope.sign()) - start
        identity = reached(given + 4 / 255 * wanted.sign()) - start
    assert along > identity


def test_impress_lowers_its_loss_and_is_adam_on_it() -> None:
    settings: dict[str, Any] = {"steps": 6, "noise": 0.1, "alpha": 0.5, "budget": 0.02}
    ours = purified(Impress(**settings))
    backbone = FakeBackbone().eval().requires_grad_(False)
    noise = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(0))
    x = (2 * IMAGES - 1 + 0.1 * noise).requires_grad_()
    first = second = torch.zeros_like(IMAGES)
    losses = []
    for i in range(6):
        pixels = (x + 1) / 2
        again = backbone.decode(backbone.encode(pixels).mean)
        error = ((2 * again - 1) - x).square().mean(dim=(1, 2, 3))
        loss = (error + 0.5 * torch.relu(dissimilarity(pixels, IMAGES) - 0.02)).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        rate = 1e-5 + (0.01 - 1e-5) * (1 + np.cos(np.pi * i / 6)) / 2
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9 ** (i + 1))) / ((second / (1 - 0.999 ** (i + 1))).sqrt() + 1e-5)
        x = (x - rate * step).clamp(-1, 1).detach().requires_grad_()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert (ours - (x.detach() + 1) / 2).abs().max() <= 0.51 / 255 + 1e-3


def test_impress_moves_a_picture_alike_alone_and_among_others() -> None:
    purifier = Impress(steps=20, noise=0, alpha=0.5, budget=0.0)
    among = purified(purifier, torch.cat([IMAGES, IMAGES.flip(-1).repeat(4, 1, 1, 1)]))
    assert (among[0] - IMAGES[0]).abs().max() > 5 / 255
    assert (among[:1] - purified(purifier, IMAGES[:1])).abs().max() <= 1 / 255


def test_pocket_restoration_is_the_shipped_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = networks.Restorer(width=8)
    networks.save(network, tmp_path / "restoration")
    monkeypatch.setattr("shortcut_lightning.pocket.WEIGHTS", tmp_path)
    monkeypatch.setattr(
        networks, "load_restoration", lambda: networks._load(_Small, tmp_path / "restoration")
    )
    restored = purified(PocketRestoration())
    with torch.no_grad():
        expected = networks._load(_Small, tmp_path / "restoration")(IMAGES)
    assert (restored - expected).abs().max() <= 0.51 / 255


class _Small(networks.Restorer):
    def __init__(self, width: int = 8) -> None:
        super().__init__(width)


def test_pocket_restoration_keeps_a_pictures_shape() -> None:
    """A longer picture is not squeezed into a square, where its stripes would be gone."""
    stripes = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(3, 64, 32)[None]
    restored = purified(PocketRestoration(), stripes)
    assert restored.shape == stripes.shape
    assert restored.diff(dim=-1).abs().max() > 0.5


def test_missing_pocket_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shortcut_lightning.pocket.WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="PocketRestoration's weights are not in this"):
        purified(PocketRestoration())


def test_swin2sr_shrinks_and_enlarges(tmp_path: Path) -> None:
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    torch.manual_seed(0)
    config = Swin2SRConfig(
        image_size=16, patch_size=1, embed_dim=12, depths=[1], num_heads=[2], window_size=8,
        upscale=2, upsampler="pixelshuffledirect",
    )  # fmt: skip
    model = Swin2SRForImageSuperResolution(config).eval()
    model.save_pretrained(tmp_path / "swin")
    out = purified(Swin2SR(str(tmp_path / "swin")))
    assert out.shape == IMAGES.shape
    small = nn.functional.interpolate(IMAGES, (12, 16), mode="bicubic", antialias=True)
    with torch.no_grad():
        padded = torch.cat([small, small[..., -1:, :].expand(-1, -1, 4, -1)], dim=-2).clamp(0, 1)
        expected = model(padded).reconstruction[..., :24, :32].clamp(0, 1)
    assert (out - expected).abs().max() <= 0.51 / 255 + 1e-5


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_upscaler_runs_a_folder_of_diffusers(small_sd: Path, tmp_path: Path) -> None:
    from shortcut_lightning import backbones

    backbone: Any = backbones.load(str(small_sd))
    torch.manual_seed(0)
    pipeline = StableDiffusionUpscalePipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=4,
        ),
        text_encoder=backbone.text_encoder,
        tokenizer=backbone.tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8, in_channels=7, out_channels=4, block_out_channels=(8, 16),
            layers_per_block=1, cross_attention_dim=32, attention_head_dim=4, norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            num_class_embeds=1000,
        ),
        low_res_scheduler=DDPMScheduler(),
        scheduler=backbone.scheduler,
        max_noise_level=350,
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path / "x4", safe_serialization=True)
    purifier = Upscaler(str(tmp_path / "x4"), "{caption}", num_inference_steps=2, noise_level=320)
    images = IMAGES[:, :, :, :24].repeat(1, 1, 2, 2)[..., :32, :32]
    out = purified(purifier, images)
    assert out.shape == images.shape
    assert torch.equal(out, purified(purifier, images))
    assert not torch.equal(out, purified(purifier, images, seed=1))
    near = purifier.stand_in(images)
    assert torch.equal(near, resized(resized(images, (8, 8)), (32, 32)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_network_of_ones_own(tmp_path: Path) -> None:
    class Darker(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.interpolate((x - 1) / 2, scale_factor=2.0)

    torch.jit.script(Darker()).save(str(tmp_path / "net.pt"))
    out = purified(ExternalRestoration(str(tmp_path / "net.pt"), value_range="-1..1"))
    # (2 x - 1 - 1) / 2 = x - 1 of signed pixels is x / 2 of ours
    assert (out - IMAGES / 2).abs().mean() < 0.06
    assert out.shape == IMAGES.shape


class Halving(nn.Module):
    """Answers as CodeFormer does: the picture, here at half its contrast, and something else."""

    def forward(self, image: Tensor) -> tuple[Tensor, None]:
        return image / 2, None


def test_other_weights_go_to_spandrel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ValueError, match=r"'net\.pth' needs spandrel to be recognised \(pip"):
        purified(ExternalRestoration(str(tmp_path / "net.pth")))
    found = nn.Module()
    found.model = nn.Identity()
    found.forward = found.model.forward  # type: ignore[method-assign]
    stand_in = ModuleType("spandrel")
    stand_in.ModelLoader = lambda device: SimpleNamespace(  # type: ignore[attr-defined]
        load_from_file=lambda file: found
    )
    monkeypatch.setitem(sys.modules, "spandrel", stand_in)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    found.architecture = SimpleNamespace(id="ESRGAN")
    assert torch.equal(purified(ExternalRestoration(str(tmp_path / "net.pth"))), IMAGES)
    # Spandrel gives face networks their pictures in [0, 1], and they take [-1, 1].
    found.architecture, found.model = SimpleNamespace(id="CodeFormer"), Halving()
    dimmed = purified(ExternalRestoration(str(tmp_path / "net.pth")))
    expected = ((((IMAGES * 2 - 1) / 2 + 1) / 2) * 255).round() / 255
    assert torch.equal(dimmed, expected)


def test_the_oracle_gives_the_clean_images_back(tmp_path: Path) -> None:
    from fake_model import FakeModule
    from lightning.pytorch import Trainer

    from shortcut_lightning.attacks import RandomNoise
    from shortcut_lightning.data import PersonalizationDataModule
    from shortcut_lightning.purifiers import Jpeg

    Image.effect_noise((16, 16), 60).convert("RGB").save(tmp_path / "a.png")
    data = PersonalizationDataModule(
        str(tmp_path), "a photo", attack=RandomNoise(16), purifiers=[Jpeg(10), Oracle()]
    )
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
    trainer.datamodule = data  # type: ignore[attr-defined]
    data.trainer = trainer
    trainer.strategy.connect(FakeModule())
    data.setup("test")
    assert torch.equal(data.trained_on[0].image, data.given[0].image)
    assert not torch.equal(data.perturbed[0].image, data.given[0].image)
    with pytest.raises(ValueError, match="Oracle knows clean images only where"):
        purified(Oracle())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(0), "sigma is 0"),
        (lambda: TotalVariation(-1), "weight is -1"),
        (lambda: Impress(0), "steps is 0"),
        (lambda: Swin2SR("x", -1), "shrink is -1"),
        (lambda: Upscaler("x", shrink=0.5), r"shrink is 0\.5"),
        (lambda: purified(Swin2SR("/no/model")), "Swin2SR cannot load '/no/model'"),
        (lambda: purified(Upscaler("/no/model")), "Upscaler cannot load '/no/model'"),
        (
            lambda: purified(ExternalRestoration("codeformer.pth")),
            r"No weights at 'codeformer\.pth' \(data\.purifiers\.path\)",
        ),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
