"""Every kind of file a folder of photographs holds: python -m pytest tests/data/test_images.py"""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from shortcut_lightning.files.images import (
    center_crop,
    load_image,
    load_images,
    resize_shorter_side,
    round_to_8_bits,
    save_image,
)

# 12 x 10 pixels, a ramp to the right in red and downwards in green, so that orientation shows.
RAMP = np.stack(
    [
        np.tile(np.arange(12) * 20, (10, 1)),
        np.tile(np.arange(10)[:, None] * 25, (1, 12)),
        np.full((10, 12), 90),
    ],
    axis=-1,
).astype(np.uint8)
EXPECTED = torch.from_numpy(RAMP).permute(2, 0, 1) / 255


def load(path: Path) -> Tensor:
    image = load_image(path)
    assert image.dtype == torch.float32
    assert image.shape[0] == 3
    assert torch.equal(image, round_to_8_bits(image))
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_rgb(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RAMP).save(tmp_path / f"a.{suffix}")
    assert torch.equal(load(tmp_path / f"a.{suffix}"), EXPECTED)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    sideways = Image.fromarray(np.rot90(RAMP).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    sideways.save(tmp_path / "a.png", exif=exif)
    assert torch.equal(load(tmp_path / "a.png"), EXPECTED)


def test_grayscale_and_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(RAMP[..., 0]).save(tmp_path / "gray.png")
    assert torch.equal(load(tmp_path / "gray.png"), EXPECTED[:1].expand(3, -1, -1))
    Image.fromarray(RAMP[..., 0] > 100).save(tmp_path / "one_bit.png")
    expected = (EXPECTED[:1] * 255 > 100).float().expand(3, -1, -1)
    assert torch.equal(load(tmp_path / "one_bit.png"), expected)


def test_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(RAMP[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert torch.equal(load(tmp_path / "a.png"), EXPECTED[:1].expand(3, -1, -1))


def test_32_bit_integers_and_floats_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RAMP[..., 0].astype(np.int32) * 10**6).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="32-bit pixels"):
        load_image(tmp_path / "a.tiff")
    Image.fromarray(RAMP[..., 0].astype(np.float32)).save(tmp_path / "b.tiff")
    with pytest.raises(ValueError, match="floating-point pixels"):
        load_image(tmp_path / "b.tiff")


def test_cmyk(tmp_path: Path) -> None:
    Image.fromarray(RAMP).convert("CMYK").save(tmp_path / "a.tiff")
    assert torch.equal(load(tmp_path / "a.tiff"), EXPECTED)
    Image.fromarray(RAMP).resize((120, 100)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    plain = torch.from_numpy(np.array(Image.fromarray(RAMP).resize((120, 100))))
    assert (load(tmp_path / "a.jpg") - plain.permute(2, 0, 1) / 255).abs().mean() < 0.02


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = np.zeros((10, 12, 1), np.uint8)
    alpha[:, 6:] = 255
    Image.fromarray(np.concatenate([RAMP, alpha], -1)).save(tmp_path / "rgba.png")
    expected = EXPECTED.clone()
    expected[:, :, :6] = 1
    assert torch.equal(load(tmp_path / "rgba.png"), expected)
    gray = Image.fromarray(RAMP[..., 0]).convert("LA")
    gray.putalpha(Image.fromarray(alpha[..., 0]))
    gray.save(tmp_path / "la.png")
    assert torch.equal(load(tmp_path / "la.png")[1], expected[0])


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.new("P", (12, 10), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(0, (0, 0, 6, 10))
    palette.save(tmp_path / "p.png")
    image = load(tmp_path / "p.png")
    assert image[:, 0, 0].tolist() == [1, 0, 0]
    assert image[:, 0, 11].tolist() == [0, 0, 1]
    palette.save(tmp_path / "transparent.png", transparency=0)
    image = load(tmp_path / "transparent.png")
    assert image[:, 0, 0].tolist() == [1, 1, 1]
    assert image[:, 0, 11].tolist() == [0, 0, 1]


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (10, 10), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load(tmp_path / "a.gif")[:, 5, 5].tolist() == [1, 0, 0]


def test_all_bad_files_are_named_in_one_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "empty.png").touch()
    for name in ("cut.png", "cut.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (7, 100)).save(tmp_path / "tiny.png")
    with pytest.raises(ValueError, match=f"5 of 6 images in {tmp_path} cannot be used") as caught:
        load_images(sorted(tmp_path.iterdir()))
    message = str(caught.value)
    assert "good.png" not in message
    assert "tiny.png is 7 x 100 pixels, under 8 pixels a side" in message
    for name in ("text.jpg", "empty.png", "cut.png", "cut.jpg"):
        assert f"{name} cannot be read" in message
    assert "\n" not in message


def test_whatever_pillow_makes_of_damaged_exif_is_a_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")

    def damaged(picture: Image.Image) -> Image.Image:
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(ImageOps, "exif_transpose", damaged)
    with pytest.raises(ValueError, match=r"a\.png cannot be read \(required argument"):
        load_images([tmp_path / "a.png"])


def test_saving_and_loading_is_exact(tmp_path: Path) -> None:
    image = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    save_image(image, tmp_path / "a.png")
    assert torch.equal(load(tmp_path / "a.png"), round_to_8_bits(image))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_resizing_equals_pillow_and_leaves_what_fits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(60, 90, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    expected = np.array(Image.fromarray(pixels).resize((48, 32), Image.Resampling.BILINEAR))
    got = resize_shorter_side(image, 32)
    assert got.shape == (3, 32, 48)
    assert torch.equal(got, round_to_8_bits(got))
    assert ((got * 255).permute(1, 2, 0) - torch.from_numpy(expected)).abs().max() <= 1.01
    assert resize_shorter_side(image, 60) is image


def test_the_middle_is_cropped() -> None:
    image = torch.arange(6.0).expand(3, 4, 6)
    assert center_crop(image, 4)[0, 0].tolist() == [1, 2, 3, 4]
