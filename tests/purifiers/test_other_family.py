"""Purifiers that go through another family: python -m pytest tests/purifiers"""

from pathlib import Path

import pytest
import torch
from fake_model import FakeBackbone
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.purifiers import OtherAutoencoder, Purifier, SDEdit

CAPTIONS = ["a photo of sks person", "a dog"]


def pictures(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, height, width), generator=generator) / 255


def purified(purifier: Purifier, backbone: Backbone, images: Tensor) -> Tensor:
    chance = torch.Generator().manual_seed(7)
    return purifier(images, backbone, CAPTIONS, generator=chance)


@torch.no_grad()
def round_trip(name: str, images: Tensor) -> Tensor:
    model = backbones.load(name).eval()
    return model.decode(model.encode(images).mean)


def test_the_other_family_is_the_one_that_the_run_does_not_train(small_sd3: Path) -> None:
    images, flow = pictures(64, 64), backbones.load(str(small_sd3))
    for backbone, name in ((FakeBackbone(), "pocket-flow"), (flow, "pocket")):
        out = purified(OtherAutoencoder(), backbone, images)
        assert (out - round_trip(name, images)).abs().max() <= 0.51 / 255
        assert not torch.equal(out, images)


def test_its_autoencoder_is_what_is_named(small_sd: Path) -> None:
    images = pictures(32, 32)
    out = purified(OtherAutoencoder(str(small_sd)), FakeBackbone(), images)
    assert (out - round_trip(str(small_sd), images)).abs().max() <= 0.51 / 255


def test_image_to_image_by_another_is_its_own_walk(small_sd: Path, small_sd3: Path) -> None:
    settings = {"strength": 0.15, "steps": 3, "prompt": "{caption}", "negative_prompt": "noise"}
    images = pictures(32, 32)
    for name in (small_sd, small_sd3):
        own = purified(SDEdit(**settings), backbones.load(str(name)).eval(), images)
        lent = purified(SDEdit(**settings, backbone=str(name)), FakeBackbone(), images)
        assert torch.equal(own, lent)


def test_what_is_led_away_from_is_said_to_the_model(small_sd: Path) -> None:
    images, model = pictures(32, 32), backbones.load(str(small_sd)).eval()
    plain = SDEdit(0.3, steps=2, prompt="")
    assert not torch.equal(
        purified(plain, model, images),
        purified(SDEdit(0.3, steps=2, prompt="", negative_prompt="noise"), model, images),
    )


@pytest.mark.parametrize("purifier", [OtherAutoencoder(), SDEdit(backbone="other", steps=2)])
@pytest.mark.parametrize(("height", "width"), [(30, 50), (64, 84)])
def test_pictures_of_any_size_keep_it(purifier: Purifier, height: int, width: int) -> None:
    images = pictures(height, width)
    out = purified(purifier, FakeBackbone(), images)
    assert out.shape == images.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("kind", [OtherAutoencoder, SDEdit])
def test_a_family_that_is_not_there_is_named(kind: type) -> None:
    with pytest.raises(ValueError, match=r"data.purifiers.backbone: no folder or file '/no/such'"):
        purified(kind(backbone="/no/such"), FakeBackbone(), pictures(32, 32))


def test_one_model_walks() -> None:
    with pytest.raises(ValueError, match=r"pixel_model is 'a' and data.purifiers.backbone 'b'"):
        SDEdit(pixel_model="a", backbone="b")
