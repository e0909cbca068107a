"""No picture is passed over in silence: python -m pytest tests/files/test_contents.py"""

import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from shortcut_lightning.files import folders, images
from shortcut_lightning.files.contents import look_into
from shortcut_lightning.files.images import load_image, load_images

PICTURE = Image.linear_gradient("L").resize((40, 30)).convert("RGB")


def add(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(folder / name)
    return folder


@pytest.mark.parametrize("suffix", ["avif", "jp2", "j2k", "tga", "jfif", "AVIF"])
def test_what_browsers_and_cameras_write_is_read(tmp_path: Path, suffix: str) -> None:
    add(tmp_path, f"a.{suffix}", "a.png")
    (path,) = (path for path in folders.list_images(tmp_path, "k") if path.suffix != ".png")
    assert (load_image(path) - load_image(tmp_path / "a.png")).abs().mean() < 0.03


def test_heic_is_read_or_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (path,) = folders.list_images(tmp_path, "k")
    monkeypatch.setattr(images, "_reads_heif", lambda: False)
    needed = r"IMG_1\.HEIC is HEIC, which needs the extra heif: pip install .*\[heif\]"
    with pytest.raises(ValueError, match=needed):
        load_images([path])
    monkeypatch.undo()
    pytest.importorskip("pi_heif", reason="the extra heif is not installed")
    with pytest.raises(ValueError, match=r"IMG_1\.HEIC cannot be read"):
        load_images([path])


def test_a_heic_picture_is_a_picture(tmp_path: Path) -> None:
    writer = pytest.importorskip("pillow_heif", reason="pi-heif cannot write one")
    writer.from_pillow(PICTURE).save(tmp_path / "a.heic")
    add(tmp_path, "a.png")
    difference = load_image(tmp_path / "a.heic") - load_image(tmp_path / "a.png")
    assert difference.abs().mean() < 0.03


def test_everything_else_is_named_with_its_reason(tmp_path: Path) -> None:
    add(tmp_path, "a.png", "holiday/b.png", "noname.png")
    (tmp_path / "noname.png").rename(tmp_path / "noname")
    texts = ("a.txt", "other.txt", "metadata.jsonl", "Thumbs.db", ".DS_Store", "a.xmp")
    for name in (*texts, "raw.CR2", "film.mov", "layers.psd", "notes.docx"):
        (tmp_path / name).write_text("something")
    os.mkfifo(tmp_path / "pipe.png")
    pictures, left_out = look_into(tmp_path, False)
    assert pictures == [tmp_path / "a.png"]
    assert {name: reason.split(":")[0] for name, reason in left_out.items()} == {
        "film.mov": "a video",
        "holiday/": "a subfolder, read with --data.recursive true",
        "layers.psd": "a format that is not read",
        "noname": "a PNG picture by its content",
        "notes.docx": "no picture",
        "other.txt": "a caption of no picture",
        "pipe.png": "no regular file",
        "raw.CR2": "a camera's raw file, which is not read",
    }


def test_a_link_to_nothing_is_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        load_images(folders.list_images(tmp_path, "k"))


def test_it_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, "a.png", "deep/b.png")
    for name in ("one.pdf", "two.pdf"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            folders.read_folder(tmp_path, "instance_data_dir", False, False)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Left out of {tmp_path} (data.instance_data_dir): deep/ (a subfolder, read with "
        "--data.recursive true); one.pdf, two.pdf (a format that is not read: save it as PNG, "
        "TIFF or JPEG)."
    )


def test_subfolders_with_their_captions(tmp_path: Path) -> None:
    add(tmp_path, "a.png", "x/a.png", "x/y/b.png", "own/c.png", ".hidden/d.png")
    add(tmp_path, "measured/contact_sheet.png")
    (tmp_path / "measured" / "measured.json").write_text("[]")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "one"}\n{"file_name": "x/a.png", "text": "two"}\n'
    )
    (tmp_path / "x" / "y" / "b.txt").write_text("three")
    (tmp_path / "own" / "metadata.jsonl").write_text('{"file_name": "c.png", "text": "four"}')
    found = folders.read_folder(tmp_path, "instance_data_dir", True, True)
    assert [(entry.name, entry.text) for entry in found] == [
        ("a.png", "one"),
        ("own/c.png", "four"),
        ("x/a.png", "two"),
        ("x/y/b.png", "three"),
    ]
    (tmp_path / "x" / "round").symlink_to(tmp_path)
    pictures, left_out = look_into(tmp_path, True)
    assert len(pictures) == 4
    assert left_out == {"x/round/": "a link to a folder, which is not followed"}


def test_names_that_are_not_utf8_become_text(tmp_path: Path) -> None:
    raw = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    PICTURE.save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", raw)
    (entry,) = folders.read_folder(tmp_path, "instance_data_dir", False)
    assert entry.name == "caf\\xe9.png"
    assert load_image(entry.path).shape == (3, 30, 40)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"file_name": "a.png", "text": null}', "as strings, got text null"),
        ('{"file_name": "a.png", "text": ["a", "b"]}', 'as strings, got text ["a", "b"]'),
        ('{"file_name": "a.png", "text": {"en": "a"}}', "as strings, got text"),
        ('{"file_name": 3, "text": "a"}', "as strings, got file_name 3"),
        ('{"file_name": "b.png", "text": "again"}', "b.png has a row already, in line 1"),
    ],
)
def test_a_row_that_says_nothing_is_named(tmp_path: Path, row: str, said: str) -> None:
    add(tmp_path, "a.png", "b.png")
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"file_name": "b.png", "text": "a wall"}\n' + row)
    with pytest.raises(ValueError, match="line 2") as caught:
        folders.read_folder(tmp_path, "instance_data_dir", True)
    assert said in str(caught.value)


def test_a_pipe_is_no_text_file(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    for name in ("metadata.jsonl", "a.txt"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}' is a pipe or a device"):
            folders.read_folder(tmp_path, "instance_data_dir", True)
        (tmp_path / name).unlink()
