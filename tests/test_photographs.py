"""Photographs in, photographs out, without a data module: pytest tests/test_photographs.py"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import shortcut_lightning as sl
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.cli import main
from shortcut_lightning.data.loading import preparation
from shortcut_lightning.files.colour import srgb_profile
from shortcut_lightning.files.images import load_image
from shortcut_lightning.photographs import protected_copy
from shortcut_lightning.report.pictures import to_pil


@pytest.fixture(scope="module")
def model() -> Backbone:
    return sl.backbones.load("pocket")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs of two shapes, one larger than the model's pictures."""
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "in").mkdir()
    for number, size in enumerate([(160, 96), (64, 64), (160, 96)]):
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        picture = torch.nn.functional.interpolate(coarse, size[::-1], mode="bicubic")[0]
        to_pil(picture.clamp(0, 1)).save(tmp_path / "in" / f"{number}.png")
    return tmp_path


def test_the_copies_are_those_of_the_verbs(folder: Path, model: Backbone) -> None:
    files = sorted((folder / "in").glob("*.png"))
    photographs = sl.Photographs(files, "a photo of sks person", model)
    given = ["--config", "quickstart", f"--data.instance_data_dir={folder / 'in'}"]
    attack = ["--data.attack=PhotoGuardEncoder", "--data.attack.steps=2"]
    main(["protect", *given, *attack, f"--output={folder / 'protected'}"])
    main(["purify", *given, "--data.purifiers+=Jpeg", f"--output={folder / 'purified'}"])
    protected = photographs.protected(sl.attacks.PhotoGuardEncoder(steps=2))
    purified = photographs.purified([sl.purifiers.Jpeg()])
    for number, file in enumerate(files):
        assert torch.equal(protected[number], load_image(folder / "protected" / file.name))
        assert torch.equal(purified[number], load_image(folder / "purified" / file.name))
        assert protected[number].shape == load_image(file).shape
        assert (protected[number] - load_image(file)).abs().max() * 255 <= 11.01


@pytest.mark.parametrize("size", [(300, 400), (300, 700), (90, 64)])
def test_a_transformer_takes_photographs_of_any_shape(size: tuple[int, int]) -> None:
    flow = sl.backbones.load("pocket-flow")
    photograph = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    photographs = sl.Photographs([photograph], "a photo", flow)
    small = photographs.small[0]
    assert all(side % flow.step == 0 for side in small.shape[-2:])
    assert max(small.shape[-2:]) <= flow.longest
    (protected,) = photographs.protected(sl.attacks.AdvDM(steps=1))
    assert protected.shape == photograph.shape
    (purified,) = photographs.purified([sl.purifiers.SDEdit(steps=2, strength=0.1)])
    assert purified.shape == photograph.shape


def test_without_a_crop_the_longer_side_is_what_a_model_takes() -> None:
    image = torch.rand(3, 300, 445, generator=torch.Generator().manual_seed(0))
    assert preparation(64, crop=False)(image).shape == (3, 64, 95)
    assert preparation(64, crop=False, multiple=8)(image).shape == (3, 64, 96)
    assert preparation(64, crop=True, multiple=8)(image).shape == (3, 64, 64)


def test_files_pictures_and_tensors_are_the_same_photographs(folder: Path, model: Backbone) -> None:
    file = folder / "in" / "0.png"
    with Image.open(file) as opened:
        forms = [file, str(file), opened.copy(), load_image(file)]
    first, *others = sl.Photographs(forms, "a photo", model).full
    assert all(torch.equal(each, first) for each in others)


def _turned(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.linear_gradient("L").resize((40, 24)).convert("RGB").save(file, exif=exif)


def _see_through(file: Path) -> None:
    picture = Image.new("RGBA", (24, 24), (200, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 12, 24))
    picture.save(file)


def _deep(file: Path) -> None:
    Image.fromarray((np.arange(24 * 24).reshape(24, 24) * 100).astype(np.uint16)).save(file)


def _profiled(file: Path) -> None:
    """Its red is what green is in sRGB, and the reverse."""
    profile = srgb_profile().replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ")
    profile = profile.replace(b"----", b"gXYZ")
    Image.new("RGB", (24, 24), (200, 90, 30)).save(file, icc_profile=profile)


@pytest.mark.parametrize("write", [_turned, _see_through, _deep, _profiled])
def test_opened_pictures_are_read_as_files_are(
    write: Callable[[Path], None], tmp_path: Path, model: Backbone
) -> None:
    write(tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as opened:
        before = opened.size, opened.mode, dict(opened.info)
        forms = [tmp_path / "one.png", opened, opened.copy()]
        first, *others = sl.Photographs(forms, "a photo", model).full
        assert (opened.size, opened.mode, dict(opened.info)) == before
    assert all(torch.equal(each, first) for each in others)


def test_a_change_is_cut_to_whole_levels_of_the_budget() -> None:
    copy = protected_copy(torch.full((3, 16, 16), 0.5), torch.full((3, 8, 8), 0.3), 7.9)
    assert (copy * 255).unique().tolist() == [pytest.approx(round(127.5 + 7))]


@pytest.mark.parametrize(
    ("pictures", "captions", "side", "says"),
    [
        ([], "a photo", 0, "got no pictures"),
        ([torch.zeros(3, 32, 32)], ["a", "b"], 0, "got 2 captions for 1 images"),
        ([torch.zeros(3, 32, 32, dtype=torch.uint8)], "a", 0, "takes images as float32"),
        ([torch.zeros(3, 32, 32)], "a", -1, "side is -1"),
        ([3], "a", 0, "got int"),
        ([Image.new("RGB", (4, 40))], "a", 0, "is 4 x 40 pixels, under 8 pixels a side"),
        ([Image.new("F", (40, 40))], "a", 0, "has floating-point pixels"),
    ],
)
def test_mistakes_are_named(
    pictures: list, captions: str, side: int, says: str, model: Backbone
) -> None:
    with pytest.raises(ValueError, match=says):
        sl.Photographs(pictures, captions, model, side)
