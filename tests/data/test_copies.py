"""Protected and purified copies of photographs: python -m pytest tests/data/test_copies.py"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_model import FakeBackbone
from PIL import Image
from torch import Tensor

from shortcut_lightning.attacks import PhotoGuardEncoder, RandomNoise
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.copies import Copies, Measured, protect_folder, purify_folder
from shortcut_lightning.files.colour import srgb_profile
from shortcut_lightning.files.images import load_image
from shortcut_lightning.metrics.fidelity import fidelity
from shortcut_lightning.purifiers import Gaussian, Oracle

CPU = torch.device("cpu")
PLACE = 0x010E  # EXIF: description


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def photograph(path: Path, size: tuple[int, int] = (48, 32), **settings: Any) -> Tensor:
    generator = torch.Generator().manual_seed(len(path.name))
    pixels = torch.randint(20, 236, (size[1], size[0], 3), generator=generator).byte()
    Image.fromarray(pixels.numpy()).resize(size).save(path, **settings)
    return load_image(path)


def data(folder: Path, **settings: Any) -> PersonalizationDataModule:
    return PersonalizationDataModule(str(folder), "a photo of sks person", **settings)


def protect(photos: Path, output: Path, attack: Any = None, **settings: Any) -> Measured:
    module = data(photos, attack=attack or RandomNoise(8, sign=True))
    return protect_folder(module, FakeBackbone(), CPU, Copies(str(output), **settings))


def test_many_photographs_are_changed_a_few_at_a_time(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        photograph(photos / f"{number}.png")
    seen: list[int] = []

    def note(self: Any, images: Tensor, *_: Any) -> Tensor:
        seen.append(len(images))
        return images

    monkeypatch.setattr(RandomNoise, "run", note)
    monkeypatch.setattr(Gaussian, "run", note)
    module = data(
        photos,
        attack=RandomNoise(8),
        purifiers=[Gaussian()],
        sample_batch_size=2,
        cache_dir=str(tmp_path / "cache"),
    )
    protect_folder(module, FakeBackbone(), CPU, Copies(str(tmp_path / "a")))
    purify_folder(module, FakeBackbone(), CPU, Copies(str(tmp_path / "b")))
    assert seen == [2, 1, 2, 1]


def test_one_photograph_of_any_size_in_one_copy_out(photos: Path, tmp_path: Path) -> None:
    clean = photograph(photos / "me.jpg", (101, 67), quality=95)
    measured = protect(photos, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "me.png",
        "measured",
    ]
    assert (tmp_path / "out" / "measured" / "contact_sheet.png").is_file()
    copy = load_image(tmp_path / "out" / "me.png")
    assert copy.shape == clean.shape == (3, 67, 101)
    assert 4 <= measured["me.png"].linf_255 <= 8 + 1e-3
    facts = json.loads((tmp_path / "out" / "measured" / "measured.json").read_text())
    (row,) = facts["copies"]
    assert row["file_name"] == "me.png"
    assert row["linf_255"] == pytest.approx(float((copy - clean).abs().max()) * 255)
    mse = float((copy - clean).double().square().mean())
    assert row["psnr"] == pytest.approx(float(-10 * torch.tensor(mse).log10()), abs=1e-3)


@pytest.mark.parametrize(("size", "larger"), [((15, 19), False), ((24, 17), True)])
def test_only_what_is_larger_than_the_model_is_called_larger(
    photos: Path, tmp_path: Path, size: tuple[int, int], larger: bool
) -> None:
    """A side that is rounded to what the model needs is not."""
    photograph(photos / "me.png", size)
    measured = protect(photos, tmp_path / "out")
    assert ("larger than the model's side" in measured.table()) == larger


@pytest.mark.parametrize("epsilon", [1, 7.65, 16])
@pytest.mark.parametrize("size", [(16, 16), (64, 40)])
@pytest.mark.parametrize("kind", [RandomNoise, PhotoGuardEncoder])
def test_the_budget_holds_in_the_written_file(
    photos: Path, tmp_path: Path, kind: Any, epsilon: float, size: tuple[int, int]
) -> None:
    attack = kind(epsilon)
    if kind is PhotoGuardEncoder:
        attack.steps = 3
    photograph(photos / "a.png", size)
    measured = protect(photos, tmp_path / "out", attack)
    assert measured["a.png"].linf_255 <= epsilon + 1e-3
    assert "beyond the budget" not in measured.table()


def test_jpeg_leaves_the_budget_and_says_so(photos: Path, tmp_path: Path) -> None:
    photograph(photos / "a.png")
    measured = protect(photos, tmp_path / "out", RandomNoise(2), format="jpeg", quality=50)
    assert Image.open(tmp_path / "out" / "a.jpg").format == "JPEG"
    assert measured["a.jpg"].linf_255 > 2
    assert "beyond the budget of 2; --format png keeps it" in measured.table()


@pytest.mark.parametrize("metadata", ["strip", "keep"])
def test_metadata_is_kept_or_stripped_and_a_profile_of_srgb_stays(
    photos: Path, tmp_path: Path, metadata: str
) -> None:
    exif = Image.Exif()
    exif[PLACE], exif[0x0112] = "at home", 6  # rotated by a quarter
    photograph(photos / "a.jpg", exif=exif, icc_profile=srgb_profile(), quality=95)
    protect(photos, tmp_path / "out", metadata=metadata)
    with Image.open(tmp_path / "out" / "a.png") as copy:
        assert copy.size == (32, 48)  # upright
        assert copy.info["icc_profile"] == srgb_profile()
        found = copy.getexif()
        assert found.get(PLACE) == ("at home" if metadata == "keep" else None)
        assert found.get(0x0112, 1) == 1


def test_purified_copies_have_the_photographs_size(photos: Path, tmp_path: Path) -> None:
    given = photograph(photos / "a.png", (50, 40))
    module = data(photos, purifiers=[Gaussian(1.0)])
    measured = purify_folder(module, FakeBackbone(), CPU, Copies(str(tmp_path / "out")))
    out = load_image(tmp_path / "out" / "a.png")
    assert out.shape == given.shape
    assert out.std() < 0.8 * given.std()
    assert measured["a.png"] == fidelity(out, given)


def test_equal_pictures_have_no_finite_ratio(photos: Path, tmp_path: Path) -> None:
    class Nothing(RandomNoise):
        def run(self, images: Tensor, *asked: Any) -> Tensor:
            return images

    photograph(photos / "a.png", (16, 16))
    protect(photos, tmp_path / "out", Nothing())
    facts = json.loads((tmp_path / "out" / "measured" / "measured.json").read_text())
    (row,) = facts["copies"]
    assert (row["linf_255"], row["psnr"], row["ssim"]) == (0, None, pytest.approx(1))


def test_mistakes_are_named(photos: Path, tmp_path: Path) -> None:
    photograph(photos / "a.png")
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"data\.attack is not set"):
        protect_folder(data(photos), FakeBackbone(), CPU, Copies(str(out)))
    with pytest.raises(ValueError, match=r"data\.purifiers is empty"):
        purify_folder(data(photos), FakeBackbone(), CPU, Copies(str(out)))
    with pytest.raises(ValueError, match="Oracle knows clean images only"):
        purify_folder(data(photos, purifiers=[Oracle()]), FakeBackbone(), CPU, Copies(str(out)))
    protect(photos, out)
    with pytest.raises(ValueError, match=r"already holds a\.png and more; give another --output"):
        protect(photos, out)
    protect(photos, out, overwrite=True)
    with pytest.raises(ValueError, match="is the folder of the photographs"):
        protect(photos, photos, overwrite=True)
    photograph(photos / "a.jpg", quality=95)
    assert [*protect(photos, tmp_path / "other")] == ["a.jpg.png", "a.png.png"]
    photograph(photos / "a.jpg.bmp")
    with pytest.raises(ValueError, match=r"both be written as a\.jpg\.png"):
        protect(photos, tmp_path / "third")
    with pytest.raises(ValueError, match="quality is 0"):
        Copies("out", quality=0)
    with pytest.raises(ValueError, match="--output is empty"):
        Copies("")


def test_what_is_written_down_is_enough_to_make_it_again(photos: Path, tmp_path: Path) -> None:
    photograph(photos / "a.png", (64, 40))
    module = data(photos, attack=PhotoGuardEncoder(8, steps=2), cache_dir=str(tmp_path / "cache"))
    measured = protect_folder(
        module, FakeBackbone(), CPU, Copies(str(tmp_path / "out")), "pocket-flow"
    )
    facts = json.loads((tmp_path / "out" / "measured" / "measured.json").read_text())
    made = facts["recipe"]
    kind, arguments = made["stages"][:2]
    assert kind.endswith("PhotoGuardEncoder")
    assert arguments == {"epsilon": 8, "step_size": 2.55, "steps": 2, "target": ""}
    assert made["model"] == {"name": "pocket-flow", "fingerprint": FakeBackbone().fingerprint()}
    assert made["side"] == 16
    assert made["versions"]["torch"] == torch.__version__
    said = " ".join(facts["notes"])
    assert "Protected against pocket-flow, and shown to work against no other model." in said
    assert "is the built-in rehearsal" in said
    assert (
        "1 of 1 photographs are larger than the model's side: the pattern was computed at" in said
    )
    assert measured.notes == facts["notes"]
    assert "cache" not in said
    again = protect_folder(module, FakeBackbone(), CPU, Copies(str(tmp_path / "again")), "my-sd")
    assert "perturb stage was found in the cache" in again.table()
    assert "rehearsal" not in again.table()


def test_a_killed_run_goes_on_with_its_own_copies(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        photograph(photos / f"{name}.png", (16, 16))
    out, write, written = tmp_path / "out", Copies.write, []

    def killed(self: Copies, image: Tensor, original: Path, target: Path, begun: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(target.name)
        write(self, image, original, target, begun)

    monkeypatch.setattr(Copies, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        protect(photos, out)
    monkeypatch.setattr(Copies, "write", write)
    kept = {name: (out / name).stat().st_mtime_ns for name in ("a.png", "b.png")}
    with pytest.raises(ValueError, match=r"already holds a\.png"):
        protect(photos, out, RandomNoise(4))  # another recipe: these are not its own
    assert [*protect(photos, out)] == ["a.png", "b.png", "c.png"]
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert not (out / "measured" / "begun.json").exists()
    whole_run = protect(photos, tmp_path / "whole")
    for name in whole_run:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_file_that_is_not_ones_own_is_never_replaced(photos: Path, tmp_path: Path) -> None:
    photograph(photos / "a.png", (16, 16))
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"somebody else's")
    with pytest.raises(ValueError, match=r"already holds a\.png"):
        protect(photos, out)
    assert (out / "a.png").read_bytes() == b"somebody else's"
