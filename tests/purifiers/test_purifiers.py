"""Purifiers against independent implementations: python -m pytest tests/purifiers"""

from io import BytesIO

import numpy as np
import pytest
import torch
from fake_model import FakeBackbone
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from shortcut_lightning.purifiers import Gaussian, Jpeg, Purifier, Resize

IMAGES = torch.randint(256, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0)) / 255


def purified(purifier: Purifier, images: Tensor = IMAGES) -> Tensor:
    return purifier(images, FakeBackbone(), ["a photo"] * len(images), generator=torch.Generator())


@pytest.mark.parametrize("sigma", [0.5, 1.5, 5.0])
def test_gaussian_equals_scipy(sigma: float) -> None:
    expected = IMAGES.numpy().astype(np.float64)
    for axis in (-2, -1):
        # scipy's radius is int(truncate * sigma + 0.5); ours is 4 sigma rounded up
        radius = int(np.ceil(4 * sigma))
        expected = gaussian_filter1d(expected, sigma, axis, mode="nearest", radius=radius)
    difference = (purified(Gaussian(sigma)) - torch.from_numpy(expected)).abs().max()
    assert difference <= 0.5 / 255 + 1e-5


def test_gaussian_keeps_a_flat_image() -> None:
    flat = torch.full((1, 3, 16, 16), 77 / 255)
    assert torch.equal(purified(Gaussian(3.0), flat), flat)


def test_jpeg_is_pillows_file() -> None:
    file = BytesIO()
    pixels = (IMAGES[1] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, format="JPEG", quality=30)
    expected = np.array(Image.open(file))
    got = (purified(Jpeg(30))[1] * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(got, expected)


def test_resize_removes_what_is_finer_than_its_grid_and_keeps_the_rest() -> None:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    checkers = ((rows + columns) % 2 * 40 / 255).expand(1, 3, 32, 32)
    ramp = (columns * 4 / 255).expand(1, 3, 32, 32)
    out = purified(Resize(0.5), ramp + checkers)
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert ((out - (ramp + 20 / 255))[inside] * 255).abs().max() <= 3


def test_lanczos_is_pillows() -> None:
    out = purified(Resize(0.5, "lanczos"))
    for got, image in zip(out, IMAGES, strict=True):
        channels = [Image.fromarray(channel) for channel in image.numpy()]
        small = [each.resize((16, 12), Image.Resampling.LANCZOS) for each in channels]
        small = [Image.fromarray(np.array(each).clip(0, 1)) for each in small]
        again = [each.resize((32, 24), Image.Resampling.LANCZOS) for each in small]
        expected = torch.from_numpy(np.stack(again)).clamp(0, 1)
        assert (got - expected).abs().max() <= 0.51 / 255


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0), r"Gaussian\.sigma is 0; it must be above 0"),
        (lambda: Jpeg(0), "quality is 0"),
        (lambda: Resize(1.0), r"scale is 1; it must be above 0 and below 1"),
    ],
)
def test_impossible_settings_are_refused(make: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
