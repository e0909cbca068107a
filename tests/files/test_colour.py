"""Pixels are sRGB whatever a picture was saved in: python -m pytest tests/files/test_colour.py"""

import logging
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from shortcut_lightning.files.colour import profile_of_copy, srgb_profile
from shortcut_lightning.files.images import load_image

# Of middle saturation: 8 bits of a wide space round what is near sRGB's edge by more than 2 levels.
PIXELS = np.random.default_rng(0).integers(70, 200, (9, 9, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS).resize((64, 64), Image.Resampling.BICUBIC)
# Primaries of Adobe RGB and of ROMM RGB (ProPhoto), adapted to D50.
ADOBE = ((0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457))
ROMM = ((0.79767, 0.13519, 0.03134), (0.28804, 0.71188, 0.00009), (0.0, 0.0, 0.82491))


def _tag(kind: bytes, data: bytes) -> bytes:
    content = kind + bytes(4) + data
    return content + bytes(-len(content) % 4)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2 around its tags."""
    tags = {
        b"desc": _tag(b"desc", struct.pack(">I", 5) + b"test\0" + bytes(78)),
        b"wtpt": _tag(b"XYZ ", _fixed(0.9642, 1.0, 0.8249)),
    } | tags
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    between = b"XYZ " if b"rXYZ" in tags or space == b"GRAY" else b"Lab "
    header = struct.pack(">I4sI4s4s4s", 0, bytes(4), 0x02400000, b"prtr", space, between)
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(0.9642, 1.0, 0.8249)
    size = len(header) + (128 - len(header)) + len(table) + len(body)
    return struct.pack(">I", size) + header[4:] + bytes(128 - len(header)) + table + body


def wide(primaries: tuple[tuple[float, ...], ...], gamma: float) -> bytes:
    """A profile of three primaries and one gamma."""
    columns = zip((b"rXYZ", b"gXYZ", b"bXYZ"), zip(*primaries, strict=True), strict=True)
    tags = {name: _tag(b"XYZ ", _fixed(*column)) for name, column in columns}
    curve = _tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey(gamma: float) -> bytes:
    return _profile(b"GRAY", {b"kTRC": _tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))})


def four_inks() -> bytes:
    """A profile of CMYK whose inks are paler than pure ones: a table of 2 x 2 x 2 x 2 in Lab."""
    corners = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = (1 - corners[:, :3] * 0.8) * (1 - corners[:, 3:] * 0.8)
    picture = Image.fromarray((light * 255).astype(np.uint8)[None])
    lab = ImageCms.profileToProfile(
        picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    signed = np.asarray(lab)[0].astype(int)
    signed[:, 1:] = (signed[:, 1:] + 128) % 256  # Pillow's are signed bytes
    ramp = bytes(range(256))
    table = struct.pack(">BBBx", 4, 3, 2) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + signed.astype(np.uint8).tobytes() + ramp * 3
    return _profile(b"CMYK", {b"A2B0": _tag(b"mft1", table)})


def changed(profile: bytes, mode: str) -> Image.Image:
    """The picture as it is saved in another colour space."""
    other = ImageCms.getOpenProfile(BytesIO(profile))
    picture = ImageCms.profileToProfile(
        PICTURE, ImageCms.createProfile("sRGB"), other, outputMode=mode
    )
    assert picture is not None
    return picture


def off(path: Path) -> float:
    """Largest distance from the picture, of 255."""
    plain = torch.from_numpy(np.array(PICTURE)).permute(2, 0, 1) / 255
    return float((load_image(path) - plain).abs().max()) * 255


@pytest.mark.parametrize(
    ("profile", "allowed"), [(wide(ADOBE, 2.2), 2), (wide(ROMM, 1.8), 3)], ids=["adobe", "romm"]
)
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_wide_colour_spaces(tmp_path: Path, profile: bytes, allowed: int, kind: str) -> None:
    settings = {"lossless": True} if kind == "webp" else {}
    picture = changed(profile, "RGB")
    picture.save(tmp_path / f"a.{kind}", icc_profile=profile, **settings)
    assert off(tmp_path / f"a.{kind}") <= allowed
    picture.save(tmp_path / f"bare.{kind}", icc_profile=b"", **settings)
    assert off(tmp_path / f"bare.{kind}") > 15


def test_cmyk_by_its_profile(tmp_path: Path) -> None:
    profile = four_inks()
    ink = Image.fromarray(np.full((16, 16, 4), [64, 128, 32, 40], np.uint8), "CMYK")
    expected = ImageCms.profileToProfile(
        ink, ImageCms.getOpenProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"),
        outputMode="RGB",
    )  # fmt: skip
    assert expected is not None
    wanted = torch.tensor(expected.getpixel((8, 8))) / 255
    for name in ("a.tiff", "a.jpg"):
        ink.save(tmp_path / name, icc_profile=profile, **({"quality": 100} if "j" in name else {}))
        assert (load_image(tmp_path / name)[:, 8, 8] - wanted).abs().max() * 255 <= 3
    ink.save(tmp_path / "bare.tiff")
    plain = torch.tensor(ink.convert("RGB").getpixel((8, 8))) / 255
    assert torch.equal(load_image(tmp_path / "bare.tiff")[:, 8, 8], plain)
    assert (plain - wanted).abs().max() * 255 > 10


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
def test_srgb_changes_no_bit(tmp_path: Path, mode: str) -> None:
    picture = PICTURE.convert(mode)
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(tmp_path / "bare.png")
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, profile in enumerate((srgb_profile(), made)):
        if mode in ("L", "LA"):
            continue
        picture.save(tmp_path / f"{number}.png", icc_profile=profile)
        assert torch.equal(
            load_image(tmp_path / f"{number}.png"), load_image(tmp_path / "bare.png")
        )


def test_transparency_and_greys(tmp_path: Path) -> None:
    profile = wide(ADOBE, 2.2)
    clear = changed(profile, "RGB")
    clear.putalpha(255)
    clear.putpixel((0, 0), (9, 9, 9, 0))
    clear.save(tmp_path / "a.png", icc_profile=profile)
    image = load_image(tmp_path / "a.png")
    assert image[:, 0, 0].tolist() == [1, 1, 1]
    plain = torch.from_numpy(np.array(PICTURE)).permute(2, 0, 1) / 255
    assert (image - plain)[:, 1:].abs().max() * 255 <= 2
    for mode in ("L", "LA"):
        Image.new("L", (16, 16), 128).convert(mode).save(
            tmp_path / "grey.png", icc_profile=grey(1.0)
        )
        assert load_image(tmp_path / "grey.png")[0, 5, 5] * 255 == pytest.approx(188, abs=1)


@pytest.mark.parametrize("profile", [b"nonsense", four_inks(), wide(ADOBE, 2.2)[:200]])
def test_a_broken_profile_is_named_and_read_as_srgb(
    tmp_path: Path, profile: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    PICTURE.save(tmp_path / "a.png", icc_profile=profile)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert off(tmp_path / "a.png") == 0
    (record,) = caplog.records
    assert f"{tmp_path / 'a.png'}: its colour profile cannot be used" in record.getMessage()
    assert record.getMessage().endswith("; it is read as sRGB.")


def test_what_a_copy_says_of_itself(tmp_path: Path) -> None:
    for profile, said in (
        (wide(ADOBE, 2.2), srgb_profile()),
        (srgb_profile(), srgb_profile()),
        (b"nonsense", b""),
        (b"", b""),
    ):
        picture = PICTURE.copy()
        picture.info = {"icc_profile": profile} if profile else {}
        assert profile_of_copy(picture) == said
