"""A file gets its name only once it is complete: python -m pytest tests/files/test_atomic.py"""

import os
import time
from pathlib import Path

import pytest

from shortcut_lightning.files import folders
from shortcut_lightning.files.atomic import atomic, atomic_folder, half_of, reclaim_all

DEAD = 2**22 + 7  # above the largest number of a process


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.part"))


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with atomic(file) as half:
        half.write_text("one")
        assert not file.exists()
    assert file.read_text() == "one"

    def stopped() -> None:
        with atomic(file) as half:
            half.write_text("two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert file.read_text() == "one"
    assert not parts(tmp_path)


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with atomic(file) as first, atomic(file) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first"  # the last to end


@pytest.mark.parametrize("name", [f".a.txt.{DEAD}.part", ".a.txt.1-00ff00ff.part"])
def test_halves_of_the_dead_are_reclaimed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where this process has the number of the one that was killed, as in containers."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    (tmp_path / name).write_text("half")
    with atomic(tmp_path / "a.txt") as half:
        half.write_text("all")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_halves_of_the_living_and_of_other_machines_stay(tmp_path: Path) -> None:
    mine = half_of(tmp_path / "a.txt")
    mine.write_text("half")
    foreign = tmp_path / f".a.txt.elsewhere-{DEAD}-00ff00ff.part"
    foreign.write_text("half")
    living = tmp_path / f".a.txt.{os.getppid()}.part"
    living.write_text("half")
    reclaim_all(tmp_path)
    assert len(parts(tmp_path)) == 3
    old = time.time() - 2 * 24 * 3600
    os.utime(foreign, (old, old))
    reclaim_all(tmp_path)
    assert parts(tmp_path) == sorted([mine.name, living.name])


def test_a_subject_half_drawn_by_a_killed_process_of_this_number_blocks_nobody(
    tmp_path: Path,
) -> None:
    folder = folders.subject_folder("pocket:0", tmp_path)
    left = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"half")
    folders.draw_subject("pocket:0", tmp_path)
    assert len(list((folder / "instance").glob("*.png"))) == 4
    assert not parts(folder.parent)


def test_a_folder_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    for text in ("one", "two"):
        with atomic_folder(folder) as half:
            (half / text).write_text(text)
        assert [path.name for path in folder.iterdir()] == [text]

    def stopped() -> None:
        with atomic_folder(folder) as half:
            (half / "three").write_text("three")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [path.name for path in folder.iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_the_longest_of_names_has_a_half_too(tmp_path: Path) -> None:
    file = tmp_path / ("é" * 125 + ".png")
    with atomic(file) as half:
        half.write_text("all")
    assert file.read_text() == "all"
    left = half_of(file)
    left.write_text("half")
    dead = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{DEAD}-"))
    left.rename(dead)
    with atomic(file) as half:
        half.write_text("again")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
