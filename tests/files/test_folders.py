"""Folders, captions and what is said about bad ones: python -m pytest tests/data/test_folders.py"""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from shortcut_lightning.data.loading import load_examples, subject_folders
from shortcut_lightning.files import folders
from shortcut_lightning.files.cache import OneProcess
from shortcut_lightning.pocket import world
from shortcut_lightning.prompts import Prompts


def add_images(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (16, 12), "red").save(folder / name)
    return folder


def refusal(folder: Path, captions: bool = False) -> str:
    with pytest.raises(ValueError, match=r"data\.instance_data_dir|metadata") as caught:
        folders.read_folder(folder, "instance_data_dir", captions)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    message = refusal(tmp_path / "photoz")
    assert "looked for .png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff, .gif, .jfif, " in message
    assert f".tga, .heic, .heif, .hif in {tmp_path}" in message
    assert "photoz (data.instance_data_dir), which does not exist." in message


def test_an_empty_folder_says_what_was_found(tmp_path: Path) -> None:
    assert "found an empty folder" in refusal(tmp_path)
    for name in ("IMG_1.CR2", "IMG_2.cr2", "notes"):
        (tmp_path / name).touch()
    (tmp_path / "set_A").mkdir()
    assert "found only 2 x .cr2, 1 x no suffix, set_A/." in refusal(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    add_images(tmp_path, "a.png")
    assert "which is a file, not a folder" in refusal(tmp_path / "a.png")


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    add_images(tmp_path, "b.JPG", "a.png")
    (tmp_path / "._a.png").write_text("what a Mac leaves on a stick")
    (tmp_path / "more.png").mkdir()
    found = folders.read_folder(tmp_path, "instance_data_dir", False)
    assert [(entry.path.name, entry.text) for entry in found] == [("a.png", ""), ("b.JPG", "")]


def test_captions_come_from_metadata_then_from_text_files(tmp_path: Path) -> None:
    add_images(tmp_path, "a.png", "b.png")
    rows = [{"file_name": "a.png", "text": " a red wall "}, {"file_name": "x.png", "text": "no"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "a.txt").write_text("not this one")
    (tmp_path / "b.txt").write_text("another\nred wall\n")
    found = folders.read_folder(tmp_path, "instance_data_dir", True)
    assert [entry.text for entry in found] == ["a red wall", "another red wall"]


def test_missing_captions_are_named(tmp_path: Path) -> None:
    add_images(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "b.txt").write_text("a wall")
    message = refusal(tmp_path, captions=True)
    assert message.startswith(f"2 of 3 images in {tmp_path} (data.instance_data_dir) have no")
    assert message.endswith("a.png, c.png. Add them, or set data.use_captions to false.")


@pytest.mark.parametrize("line", ["{", '"a.png"', '{"file_name": "a.png"}'])
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    add_images(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n' + line)
    assert "metadata.jsonl, line 2: expected a JSON object" in refusal(tmp_path, captions=True)


def test_examples_carry_the_plain_caption(tmp_path: Path) -> None:
    add_images(tmp_path, "a.png")
    prompts = Prompts("a photo of sks wall")
    for crop, shape in ((True, (3, 8, 8)), (False, (3, 8, 11))):
        (example,) = load_examples(
            tmp_path, "instance_data_dir", prompts, captions=False, side=8, crop=crop
        )
        assert example.image.shape == shape
        assert (example.prompt, example.name) == ("a photo of sks wall", "a.png")


def test_no_folder_at_all() -> None:
    with pytest.raises(ValueError, match=r"data\.instance_data_dir is not set.*pocket:<seed>"):
        subject_folders("", "", Path(), OneProcess())


def test_a_generated_subject_is_an_ordinary_folder_drawn_once(tmp_path: Path) -> None:
    instance, reference = subject_folders("pocket:3", "", tmp_path, OneProcess())
    assert reference is not None
    entries = folders.read_folder(instance, "instance_data_dir", True)
    assert len(entries) == 4
    assert all(entry.text for entry in entries)
    assert len(folders.read_folder(reference, "reference_data_dir", False)) == 32
    drawn = entries[0].path.stat().st_mtime_ns
    assert subject_folders("pocket:3", "mine", tmp_path, OneProcess()) == (instance, Path("mine"))
    assert entries[0].path.stat().st_mtime_ns == drawn
    other, _ = subject_folders("pocket:4", "", tmp_path, OneProcess())
    assert (other / "000.png").read_bytes() != (instance / "000.png").read_bytes()


def test_another_run_may_be_quicker_or_leave_half_a_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders.subject_folder("pocket:3", tmp_path)
    (tmp_path / "pocket" / f".{folder.name}.1.part").mkdir(parents=True)
    draw = world.write_subject

    def meanwhile(seed: int, half: Path) -> None:
        draw(seed, folder)
        draw(seed, half)

    monkeypatch.setattr(world, "write_subject", meanwhile)
    folders.draw_subject("pocket:3", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["instance", "reference"]
    assert not list((tmp_path / "pocket").glob(f".*.{os.getpid()}.part"))


def test_a_subject_that_cannot_be_drawn_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(seed: int, half: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(world, "write_subject", full)
    with pytest.raises(ValueError, match=r"No space left on device.*data\.cache_dir"):
        folders.draw_subject("pocket:3", tmp_path)
    assert not list((tmp_path / "pocket").iterdir())


def test_a_seed_is_a_whole_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("'pocket:dog'; a generated subject is written")):
        subject_folders("pocket:dog", "", tmp_path, OneProcess())


def test_text_files_of_windows_and_in_other_encodings(tmp_path: Path) -> None:
    folder = add_images(tmp_path, "a.png")
    (folder / "a.txt").write_bytes("\ufeffa caf\u00e9\r\n".encode())
    assert folders.read_folder(folder, "instance_data_dir", True)[0].text == "a caf\u00e9"
    (folder / "a.txt").write_bytes("a caf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not in UTF-8 .*; save it as UTF-8"):
        folders.read_folder(folder, "instance_data_dir", True)
