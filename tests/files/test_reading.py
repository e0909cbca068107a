"""What is no regular file is not read: python -m pytest tests/files/test_reading.py."""

import os
from pathlib import Path

import pytest

from shortcut_lightning.files import reading


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_or_a_device_is_refused(pipe: Path) -> None:
    for path in (pipe, Path("/dev/zero")):
        for read in (reading.refuse_pipe, reading.read_bytes, reading.read_text):
            with pytest.raises(ValueError, match=rf"'{path}' is a pipe or a device"):
                read(path)


def test_a_link_to_a_pipe_is_one(pipe: Path) -> None:
    link = pipe.with_name("link.txt")
    link.symlink_to(pipe)
    with pytest.raises(ValueError, match=r"link\.txt' is a pipe"):
        reading.read_text(link)


@pytest.mark.parametrize("deep", ["", "unet"])
def test_a_folder_with_a_pipe_is_refused(deep: str, pipe: Path) -> None:
    folder = pipe.parent / "model" / deep
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    reading.refuse_pipes(pipe.parent / "model")
    pipe.rename(folder / "pipe")
    with pytest.raises(ValueError, match="pipe' is a pipe or a device"):
        reading.refuse_pipes(pipe.parent / "model")


def test_files_folders_and_what_is_no_path_pass(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", "x" * 5000, "a\0b", "~nobody-of-that-name/a"):
        reading.refuse_pipe(path)
    with pytest.raises(ValueError, match="is a folder"):
        reading.read_bytes(tmp_path)


def test_text_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for text in (b"caf\xc3\xa9\r\n", b"\xef\xbb\xbfcaf\xc3\xa9\n"):
        file.write_bytes(text)
        assert reading.read_text(file) == "caf\u00e9\n"
    file.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"a\.txt is not in UTF-8"):
        reading.read_text(file)
