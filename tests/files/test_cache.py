"""Things kept on disk, and what can go wrong: python -m pytest tests/data/test_cache.py"""

import errno
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from shortcut_lightning.attacks import PhotoGuardEncoder, RandomNoise
from shortcut_lightning.files import cache as module
from shortcut_lightning.files.cache import (
    Cache,
    Tensors,
    alone,
    cache_folder,
    describe,
    everywhere,
    key_of,
    together,
)


class Maker:
    """Counts how often it had to work."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Tensors:
        self.calls += 1
        return {
            "0": torch.arange(6).reshape(2, 3).float(),
            "1": torch.tensor([7], dtype=torch.uint8),
        }


class OtherRank:
    """A rank that is told that rank 0 is done, or why not."""

    is_global_zero = False

    def __init__(self, message: str = "") -> None:
        self.message = message

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return self.message


@pytest.fixture
def make() -> Maker:
    return Maker()


def entry(folder: Path) -> Path:
    (path,) = folder.rglob("*.safetensors")
    return path


def test_of_two_runs_that_want_an_entry_one_makes_it(
    tmp_path: Path, make: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    begun, may_end = Event(), Event()

    def slowly() -> Tensors:
        begun.set()
        assert may_end.wait(30)
        return make()

    with ThreadPoolExecutor() as runs:
        first = runs.submit(Cache(tmp_path).get, "perturb", slowly, n=1)
        assert begun.wait(30)
        second = runs.submit(Cache(tmp_path).get, "perturb", make, n=1)
        other = runs.submit(Cache(tmp_path).get, "perturb", make, n=2)  # nobody is at that one
        assert other.result(30).keys() == {"0", "1"}
        assert not second.done()
        may_end.set()
        assert torch.equal(first.result(30)["0"], second.result(30)["0"])
    assert make.calls == 2
    assert "Another run is making" in caplog.text


def test_made_once_and_read_back_exactly(tmp_path: Path, make: Maker) -> None:
    first = Cache(tmp_path).get("stage", make, seed=1)
    again = Cache(tmp_path).get("stage", make, seed=1)
    assert make.calls == 1
    for name, tensor in make().items():
        assert torch.equal(first[name], tensor)
        assert torch.equal(again[name], tensor)
        assert again[name].dtype == tensor.dtype
    assert set(load_file(entry(tmp_path))) == {"0", "1"}  # any tool reads it


def test_everything_that_matters_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.zeros(3, 4, 4)
    changed = pixels.clone()
    changed[0, 0, 0] = 1 / 255
    keys = [
        key_of(images=[pixels], stage=RandomNoise(8)),
        key_of(images=[changed], stage=RandomNoise(8)),
        key_of(images=[pixels, pixels], stage=RandomNoise(8)),
        key_of(images=[pixels.reshape(3, 2, 8)], stage=RandomNoise(8)),
        key_of(images=[pixels.double()], stage=RandomNoise(8)),
        key_of(images=[pixels], stage=RandomNoise(9)),
        key_of(images=[pixels], stage=RandomNoise(8, sign=True)),
        key_of(images=[pixels], stage=PhotoGuardEncoder(8)),
        key_of(images=[pixels], stage=RandomNoise(8), seed=1),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of(stage=RandomNoise(8), images=[pixels.clone()])
    monkeypatch.setattr(module, "__version__", "99")
    assert keys[0] != key_of(images=[pixels], stage=RandomNoise(8))


def test_a_file_argument_counts_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    one.write_bytes(b"a")
    two.write_bytes(b"a")
    assert describe(str(one)) == describe(two)
    two.write_bytes(b"b")
    assert describe(str(one)) != describe(two)


def test_a_folder_argument_counts_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "a.png").write_bytes(b"a")
    before = describe(str(folder))
    assert describe(str(folder)) == before
    folder.rename(tmp_path / "moved")
    assert describe(tmp_path / "moved") == before
    (tmp_path / "moved" / "b.png").write_bytes(b"b")
    assert describe(tmp_path / "moved") != before


def test_an_object_is_its_class_and_arguments() -> None:
    assert describe(RandomNoise(8)) == [
        "shortcut_lightning.attacks.random_noise.RandomNoise",
        {"epsilon": 8, "sign": False},
    ]


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "garbage", "empty"])
def test_a_damaged_entry_is_made_again_with_a_warning(
    tmp_path: Path, make: Maker, damage: str
) -> None:
    Cache(tmp_path).get("stage", make)
    path = entry(tmp_path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(
        {
            "cut": bytes(content[:-4]),
            "flipped bit": bytes(content),
            "garbage": b"garbage" * 99,
            "empty": b"",
        }[damage]
    )
    with pytest.warns(UserWarning, match="is damaged .*; making it again"):
        got = Cache(tmp_path).get("stage", make)
    assert make.calls == 2
    assert torch.equal(got["0"], make()["0"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Cache(tmp_path).get("stage", make)


def test_a_full_disk_ends_clearly_and_loses_nothing(
    tmp_path: Path, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache(tmp_path).get("stage", make, seed=1)
    before = entry(tmp_path).read_bytes()

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            ValueError, match=r"\(No space left on device\); free some.*data\.cache_d"
        ):
            Cache(tmp_path).get("stage", make, seed=2)
    assert entry(tmp_path).read_bytes() == before
    assert len(list((tmp_path / "stage").iterdir())) == 1


def test_a_killed_run_leaves_no_half_entry(
    tmp_path: Path, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Cache(tmp_path).get("stage", make)
    assert not list(tmp_path.rglob("*.safetensors"))
    Cache(tmp_path).get("stage", make)
    assert make.calls == 2


def test_a_read_only_place_is_named(tmp_path: Path, make: Maker) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"Cannot write in .*file/stage \(Not a directory"):
        Cache(tmp_path / "file").get("stage", make)
    assert make.calls == 0  # found out before the work, not after


def test_other_ranks_read_what_rank_0_made(tmp_path: Path, make: Maker) -> None:
    Cache(tmp_path).get("stage", make)
    got = Cache(tmp_path, OtherRank()).get("stage", make)
    assert make.calls == 1
    assert torch.equal(got["0"], make()["0"])


def test_a_disk_that_is_not_shared_is_named(tmp_path: Path, make: Maker) -> None:
    with pytest.raises(ValueError, match=r"made by rank 0.*data\.cache_dir must be on a disk they"):
        Cache(tmp_path, OtherRank()).get("stage", make)
    assert make.calls == 0


def test_when_rank_0_fails_all_fail() -> None:
    with pytest.raises(ValueError, match="Rank 0 failed: no space"):
        together(lambda: None, OtherRank("no space"))


class Rank:
    """One of several ranks; the others say what they are given."""

    is_global_zero = False

    def __init__(self, rank: int, *messages: str) -> None:
        self.rank, self.messages = rank, messages

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj if src == self.rank else self.messages[src]


def test_where_any_rank_fails_all_do() -> None:
    everywhere(lambda: None, Rank(0, "", ""), workers=2)
    with pytest.raises(ValueError, match="Rank 1 failed: out of memory"):
        everywhere(lambda: None, Rank(0, "", "out of memory"), workers=2)

    def fails() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        everywhere(fails, Rank(1, "", ""), workers=2)


@pytest.mark.parametrize("length", [255, 256, 700, 1023, 1024, 5000])
def test_a_caption_of_any_length_is_described_as_itself(length: int) -> None:
    assert describe("a" * length) == "a" * length


def test_a_file_is_described_by_content_from_the_home_folder_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "target.png").write_bytes(b"picture")
    assert describe("~/target.png") == describe(tmp_path / "target.png")


def test_a_class_of_the_user_s_is_described_by_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "of_mine.py"
    file.write_text("class Stage:\n    strength = 1\n")
    stage = import_module("of_mine").Stage()
    before = describe(stage)
    assert describe(stage) == before
    file.write_text("class Stage:\n    strength = 2\n")
    assert describe(stage) != before
    assert len(describe(RandomNoise(8))) == 2  # ours have the package's version


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    maker = Maker()
    (tmp_path / "stage").mkdir(mode=0o500)
    with pytest.raises(ValueError, match="Cannot write in"):
        Cache(tmp_path).get("stage", maker, a=1)
    assert maker.calls == 0


def test_the_folder_in_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHORTCUT_LIGHTNING_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder("/elsewhere") == Path("/elsewhere")
    monkeypatch.delenv("SHORTCUT_LIGHTNING_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "shortcut_lightning"


def test_a_place_without_files_is_refused_at_once() -> None:
    """The kernel's folder takes none, and says so to a lock in words that mean "try again"."""
    if not Path("/proc/self").exists():
        pytest.skip("no such folder here")
    with pytest.raises(ValueError, match=r"Cannot write in /proc "), alone(Path("/proc/entry")):
        pass
