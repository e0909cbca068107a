"""Class images: each from its own seed, none made twice: python -m pytest tests/data"""

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import sleep

import pytest
import torch
from fake_model import FakeBackbone
from PIL import Image

from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data import class_images as module
from shortcut_lightning.data.class_images import (
    check_made_before,
    class_image_paths,
    make_class_images,
)
from shortcut_lightning.files.images import load_image

CPU = torch.device("cpu")


def make(folder: Path, count: int, batch_size: int = 3, rank: int = 0, world: int = 1) -> int:
    """Makes them; returns how many had to be sampled."""
    backbone = FakeBackbone()
    make_class_images(
        class_image_paths(folder, count),
        "a photo of dog",
        backbone,
        CPU,
        batch_size=batch_size,
        rank=rank,
        world_size=world,
    )
    assert {prompt for prompt, _ in backbone.sampled} <= {"a photo of dog"}
    return len(backbone.sampled)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_images_in_any_batch_and_on_any_number_of_ranks(tmp_path: Path) -> None:
    assert make(tmp_path / "one", 7, batch_size=7) == 7
    assert make(tmp_path / "two", 7, batch_size=2) == 7
    assert [make(tmp_path / "ranks", 7, rank=rank, world=3) for rank in range(3)] == [3, 2, 2]
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "ranks")
    assert len({bytes(image) for image in contents(tmp_path / "one").values()}) == 7


def test_continues_where_it_was_interrupted(tmp_path: Path) -> None:
    make(tmp_path / "whole", 6)
    make(tmp_path / "cut", 6)
    for number in (1, 4):
        (tmp_path / "cut" / f"class-{number:05d}.png").unlink()
    assert make(tmp_path / "cut", 6) == 2
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert make(tmp_path / "cut", 6) == 0
    assert make(tmp_path / "cut", 8) == 2


def test_a_rank_may_start_late(tmp_path: Path) -> None:
    """Whoever looks at a half-filled folder still makes its own share and no other."""
    assert make(tmp_path, 6, rank=1, world=2) == 3
    assert make(tmp_path, 6, rank=0, world=2) == 3
    assert len(contents(tmp_path)) == 6


def test_of_two_runs_that_want_them_one_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, begun, may_end = module.save_image, Event(), Event()

    def slowly(image: torch.Tensor, path: Path, notes: object) -> None:
        begun.set()
        assert may_end.wait(30)
        real(image, path, notes)

    monkeypatch.setattr(module, "save_image", slowly)
    with ThreadPoolExecutor() as runs:
        first = runs.submit(make, tmp_path, 4)
        assert begun.wait(30)
        second = runs.submit(make, tmp_path, 4)
        while "Another run is making" not in caplog.text and not second.done():
            sleep(0.01)
        may_end.set()
        assert (first.result(30), second.result(30)) == (4, 0)
    assert sorted(contents(tmp_path)) == [f"class-0000{number}.png" for number in range(4)]


def test_images_of_the_user_come_first_and_count(tmp_path: Path) -> None:
    for name in ("mine.png", "also.jpg"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    assert make(tmp_path, 5) == 3
    names = [path.name for path in class_image_paths(tmp_path, 5)]
    assert names[:2] == ["also.jpg", "mine.png"]
    assert names[2:] == [f"class-0000{number}.png" for number in range(3)]
    assert [path.name for path in class_image_paths(tmp_path, 1)] == ["also.jpg"]
    for name in ("class-dog-01.jpg", "class-00007.jpg"):  # as those that are made, but for the form
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    names = [path.name for path in class_image_paths(tmp_path, 5)]
    assert names == ["also.jpg", "class-00007.jpg", "class-dog-01.jpg", "mine.png", names[4]]
    assert names[4] == "class-00000.png"


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    backbone = FakeBackbone().train()
    make_class_images(class_image_paths(tmp_path, 1), "a dog", backbone, CPU, batch_size=1)
    assert backbone.training
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_a_full_disk_keeps_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = module.save_image, []

    def full_after_two(image: torch.Tensor, path: Path, notes: object) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(image, path, notes)

    monkeypatch.setattr(module, "save_image", full_after_two)
    with pytest.raises(ValueError, match=r"No space left on device.*What was made before is kept"):
        make(tmp_path, 5)
    monkeypatch.undo()
    assert make(tmp_path, 5) == 3
    assert load_image(tmp_path / "class-00004.png").shape == (3, 16, 16)


def test_made_images_are_not_reused_for_another_prompt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 3)
    Image.new("RGB", (20, 20)).save(tmp_path / "mine.png")
    paths = class_image_paths(tmp_path, 4)
    check_made_before(paths, "a photo of dog", FakeBackbone())
    assert not caplog.records
    with pytest.raises(ValueError, match=r"3 class images in .* 'a photo of dog', .* 'a cat'"):
        check_made_before(paths, "a cat", FakeBackbone())
    other = FakeBackbone()
    monkeypatch.setattr(other, "fingerprint", lambda: "another")
    check_made_before(paths, "a photo of dog", other)
    assert "3 class images in" in caplog.text
    assert "were made by another model" in caplog.text


def test_images_made_by_older_versions_are_used_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "class-00000.png")
    paths = class_image_paths(tmp_path, 2)
    check_made_before(paths, "a cat", FakeBackbone())
    assert "1 class images in" in caplog.text
    assert "do not say which prompt" in caplog.text


def test_the_folder_of_class_images_is_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def data(**settings: object) -> PersonalizationDataModule:
        folder = str(tmp_path)
        return PersonalizationDataModule(folder, "a sks dog", class_prompt="a dog", **settings)

    same = {"class_data_dir": f"{tmp_path}/.", "with_prior_preservation": True}
    with pytest.raises(ValueError, match=r"class_data_dir is .*, the folder of data\.instance"):
        data(**same)
    data(**same | {"class_data_dir": str(tmp_path / "class")})
    assert not caplog.records
    data(class_data_dir="elsewhere")
    assert "data.class_data_dir is not used" in caplog.text


def test_a_folder_that_takes_no_files_is_refused_at_once(tmp_path: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("no such folder here")
    with pytest.raises(ValueError, match="Cannot write in /proc "):
        make(Path("/proc"), 2)
