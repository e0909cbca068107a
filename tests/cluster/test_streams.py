"""Shards and tables, a part at a time: python -m pytest tests/cluster/test_streams.py"""

import json
import pickle
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from PIL import Image
from shards import Bright, encoded, write_shard, write_shards

from shortcut_lightning import backbones
from shortcut_lightning.attacks import RandomNoise
from shortcut_lightning.cli import main
from shortcut_lightning.cluster import InProcess, open_pool
from shortcut_lightning.cluster.journal import KILLS, Journal
from shortcut_lightning.cluster.sinks import Copy, Output
from shortcut_lightning.cluster.sources import (
    Broken,
    Row,
    fingerprint,
    is_stream,
    parts_of,
    rows_of,
)
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.buckets import Bucket
from shortcut_lightning.data.copies import Copies
from shortcut_lightning.data.shard_verbs import copy_shards, detect_shards
from shortcut_lightning.data.shards import DetectRows
from shortcut_lightning.files.images import load_image

parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra cluster")
CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


def read(source: Path | str) -> list[Row | Broken]:
    return [row for part in parts_of(str(source), "data.x") for row in rows_of(part)]


def detect(source: Path | str, output: Path | str, most: int = 100, pool: Any = None) -> Any:
    data = PersonalizationDataModule(str(source), "a photo", detector=Bright())
    return detect_shards(data, 32, str(output), pool or InProcess(), CPU, most)


def table(output: Path) -> list[dict[str, Any]]:
    files = sorted(output.glob("*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def test_shards_have_pictures_and_captions(tmp_path: Path) -> None:
    rows = read(write_shards(tmp_path / "shards", 2, 3))
    assert [row.name for row in rows] == [f"{number:05d}.png" for number in range(6)]
    assert [row.caption for row in rows if isinstance(row, Row)][4] == "a 00004"
    assert [row.data for row in rows if isinstance(row, Row)][5] == encoded(5, (32, 40))


def test_boxes_are_for_the_buckets_that_are_learned(tmp_path: Path) -> None:
    (row,) = read(write_shards(tmp_path / "shards", 1, 1))
    assert isinstance(row, Row)
    job = DetectRows(Bright(), 32, True, 1024, [Bucket(24, 40)])
    assert job.prepare(row).learned == (24, 40)


@pytest.mark.parametrize("nested", [False, True])
def test_tables_have_pictures_and_captions(tmp_path: Path, nested: bool) -> None:
    import pyarrow

    data = [encoded(number) for number in range(5)]
    images = [{"bytes": each, "path": "x"} for each in data] if nested else data
    columns = {"image": images, "text": [f"a {n}" for n in range(5)], "key": list("abcde")}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", row_group_size=2)
    assert len(parts_of(str(tmp_path), "data.x")) == 3
    rows = [row for row in read(tmp_path / "*.parquet") if isinstance(row, Row)]
    assert [row.data for row in rows] == data
    assert [(row.name, row.caption) for row in rows][3] == ("d", "a 3")


def test_files_by_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(1))
    (tmp_path / "a.txt").write_text("a cat\n")
    assert not is_stream(str(tmp_path))
    assert is_stream(f"{tmp_path}/*.png")
    assert read(tmp_path / "*.png") == [Row(0, "a.png", "a cat", encoded(1))]


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_captions_of_files_are_those_of_a_folder(tmp_path: Path, where: str) -> None:
    files = fsspec.filesystem("memory" if where == "memory" else "file")
    root = f"memory://{tmp_path.name}-captions" if where == "memory" else str(tmp_path / "in")
    files.makedirs(root)
    files.pipe({f"{root}/a.png": encoded(1), f"{root}/b.png": encoded(2), f"{root}/b.txt": b"a b"})
    for text in ("a cat", "a dog"):
        rows = json.dumps({"file_name": "a.png", "text": text}).encode()
        files.pipe(f"{root}/metadata.jsonl", rows)
        time.sleep(0.01)
        assert [row.caption for row in read(root) if isinstance(row, Row)] == [text, "a b"]
    before = fingerprint(parts_of(f"{root}/*.png", "data.x"))
    files.pipe(f"{root}/metadata.jsonl", b"no row")
    assert fingerprint(parts_of(f"{root}/*.png", "data.x")) != before
    assert "metadata.jsonl, line 1: expected" in str(read(f"{root}/*.png")[0])


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_brackets_in_names_are_no_pattern(tmp_path: Path, where: str) -> None:
    files = fsspec.filesystem("memory" if where == "memory" else "file")
    root = f"memory://{tmp_path.name} [1]" if where == "memory" else str(tmp_path / "in [1]")
    files.makedirs(root)
    write_shard(tmp_path / "x.tar", {"a": encoded(1)})
    files.pipe(f"{root}/one [1].tar", (tmp_path / "x.tar").read_bytes())
    files.pipe({f"{root}/b [2].png": encoded(2), f"{root}/b [2].txt": b"a b"})
    for source, names in (
        (root, ["a.png", "b [2].png"]),
        (f"{root}/one [1].tar", ["a.png"]),
        (f"{root}/b [2].png", ["b [2].png"]),
        (f"{root}/*.png", ["b [2].png"]),
        (f"{root}/*[0-9].tar", []),
        (f"{root}/*[[]1[]].tar", ["a.png"]),
    ):
        if names:
            assert [row.name for row in read(source)] == names
        else:
            with pytest.raises(ValueError, match="No pictures"):
                read(source)
    output = Output(root, "files")
    assert output.finished() == {}
    output.finish("a", {"rows": 1})
    assert output.finished() == {"a": {"rows": 1}}


@pytest.mark.parametrize("damage", ["cut", "header", "end"])
def test_what_can_be_read_of_a_broken_shard_is(tmp_path: Path, damage: str) -> None:
    shard = write_shards(tmp_path / "shards", 1, 4) / "shard-000.tar"
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as archive:
        last = archive.getmember("00003.png")
    if damage == "header":
        data[last.offset : last.offset + 300] = b"x" * 300
    else:
        del data[last.offset_data + 100 if damage == "cut" else last.offset :]
    shard.write_bytes(data)
    *rows, broken = read(shard)
    assert [row.name for row in rows] == ["00000.png", "00001.png", "00002.png"][: len(rows)]
    assert len(rows) >= 2
    assert isinstance(broken, Broken)
    assert "cannot be read further" in broken.reason


class Harm:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def write_harm(folder: Path, harmed: Path) -> None:
    """A shard and a table with a pickle in every place that a library might take it from."""
    import pyarrow

    harm = pickle.dumps(Harm(harmed))
    pictures = {"0": encoded(0), "1": harm}
    write_shard(folder / "a.tar", pictures)
    with tarfile.open(folder / "a.tar", "a") as archive:
        for suffix in ("pkl", "pyd", "pth"):
            (folder / "x").write_bytes(harm)
            archive.add(folder / "x", f"0.{suffix}")
    (folder / "x").unlink()
    kind = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object"}
    kind |= {b"ARROW:extension:metadata": harm}
    field = pyarrow.field("image", pyarrow.binary(), metadata=kind)
    made = pyarrow.table({"image": [harm]}, schema=pyarrow.schema([field]))
    parquet.write_table(made, folder / "b.parquet")


def test_nothing_of_a_file_is_unpickled(tmp_path: Path) -> None:
    write_harm(tmp_path, tmp_path / "harmed")
    pytest.importorskip("ray.data")  # registers the type
    read(tmp_path / "*.tar")
    read(tmp_path / "*.parquet")
    assert not (tmp_path / "harmed").exists()
    pickle.loads(pickle.dumps(Harm(tmp_path / "harmed")))
    assert (tmp_path / "harmed").exists()


def test_a_damaged_table_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    import pyarrow

    for name in "ab":
        table = pyarrow.table({"image": [encoded(n) for n in range(4)]})
        parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4 : len(data) // 2] = b"x" * (len(data) // 2 - 4)  # the first rows
    (tmp_path / "a.parquet").write_bytes(data)
    broken, *rows = read(tmp_path)
    assert isinstance(broken, Broken)
    assert "the table cannot be read" in broken.reason
    assert len(rows) >= 4
    (tmp_path / "a.parquet").write_bytes(b"no table")
    rows = read(tmp_path)
    assert [isinstance(row, Broken) for row in rows] == [True] + [False] * 4


def test_every_row_once_and_what_fails_is_named(tmp_path: Path) -> None:
    source = write_shards(tmp_path / "shards", 2, 5)
    write_shard(
        source / "shard-002.tar", {"a": b"no picture", "raise": encoded(3), "b": encoded(4)}
    )
    tally = detect(source, tmp_path / "out")
    assert tally.rows == 11
    assert list(tally.failures) == ["000002-shard-002/a.png", "000002-shard-002/raise.png"]
    assert "cannot be read" in tally.told()
    assert "RuntimeError: out of luck" in tally.told()
    rows = table(tmp_path / "out")
    assert len({(row["part"], row["row"]) for row in rows}) == len(rows) == 11
    assert all(row["boxes"][0]["label"] == "bright" for row in rows)


def test_too_many_failures_stop_it_and_a_larger_limit_goes_on(tmp_path: Path) -> None:
    source = write_shards(tmp_path / "shards", 1, 2)
    write_shard(source / "shard-001.tar", {f"raise{n}": encoded(n) for n in range(3)})
    with pytest.raises(ValueError, match=r"3 left out: .*--max_failures allows 2"):
        detect(source, tmp_path / "out", 2)
    assert detect(source, tmp_path / "out", 3).rows == 2
    with pytest.raises(ValueError, match="did not make"):
        detect(source / "shard-001.tar", tmp_path / "out")


def test_finished_parts_are_not_done_again(tmp_path: Path) -> None:
    source = write_shards(tmp_path / "shards", 3, 2)

    class Breaking(InProcess):
        def map(self, work: Any, parts: Any, device: Any) -> Any:
            for count, done in enumerate(super().map(work, parts, device)):
                yield done
                if count == 1:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect(source, tmp_path / "out", pool=Breaking())
    before = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "out").glob("*.parquet")}
    assert len(before) == 2
    assert detect(source, tmp_path / "out").rows == 6
    for name, at in before.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == at
    assert len(table(tmp_path / "out")) == 6


@pytest.mark.parametrize("where", ["disk", "memory", "link"])
@pytest.mark.parametrize("changed", ["a.tar", "a.png", "a.txt"])
def test_a_changed_file_is_not_taken_as_done(tmp_path: Path, changed: str, where: str) -> None:
    files, root = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    if where != "memory":
        files, root = fsspec.filesystem("file"), str(tmp_path / "in")
    files.makedirs(root)
    write_shard(tmp_path / "x.tar", {"a": encoded(1)})
    files.pipe(f"{root}/a.tar", (tmp_path / "x.tar").read_bytes())
    files.pipe({f"{root}/a.png": encoded(1), f"{root}/a.txt": b"a cat"})
    if where == "link":
        Path(root, changed).rename(tmp_path / "aside")
        Path(root, changed).symlink_to(tmp_path / "aside")
    source = f"{root}/a.tar" if changed == "a.tar" else f"{root}/*.png"
    assert detect(source, tmp_path / "out").rows == 1
    assert detect(source, tmp_path / "out").rows == 1  # nothing changed
    time.sleep(0.01)  # a clock of files has steps
    files.pipe(f"{root}/{changed}", files.cat(f"{root}/{changed}")[::-1])  # as many bytes
    with pytest.raises(ValueError, match="or made of files that have changed since"):
        detect(source, tmp_path / "out")


def test_crashes_of_one_job_drop_no_pictures_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs that are not on a disk have their journals in one place, where parts of all sources
    are called alike."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = write_shards(tmp_path / "shards", 1, 2)
    (label,) = [part.label for part in parts_of(str(source), "data.x")]
    seen: list[Path] = []

    class Crashing(InProcess):
        def map(self, work: Any, parts: Any, device: Any) -> Any:
            seen.append(work.journals / f"{label}.journal")
            seen[-1].parent.mkdir(parents=True, exist_ok=True)
            if len(seen) == 1:
                seen[-1].write_text("[0]\nFatal Python error: Segmentation fault\n")
                raise KeyboardInterrupt
            return super().map(work, parts, device)

    pool, outputs = Crashing(), [f"memory://{tmp_path.name}/{name}" for name in "ab"]
    with pytest.raises(KeyboardInterrupt):
        detect(source, outputs[0], pool=pool)
    assert detect(source, outputs[1], pool=pool).rows == 2
    again = detect(source, outputs[0], pool=pool)
    assert (again.rows, "Segmentation fault" in again.told()) == (1, True)
    assert seen[0] == seen[2] != seen[1]


@pytest.mark.slow
def test_a_picture_that_ends_the_process_is_named_in_the_end(tmp_path: Path) -> None:
    """Here the process is this one's child; the same command again goes on."""
    source = tmp_path / "shards"
    source.mkdir()
    write_shard(source / "a.tar", {"0": encoded(0), "crash": encoded(1), "2": encoded(2)})
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_streams import detect; from pathlib import Path\n"
        f"print(detect({str(source)!r}, Path({str(tmp_path / 'out')!r})).told())"
    )
    codes = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        codes.append(done.returncode)
    assert codes == [-11, -11, 0], done.stderr
    assert "crash.png it ended the process (Segmentation fault)" in done.stdout
    assert [row["name"] for row in table(tmp_path / "out")] == ["0.png", "2.png"]
    assert not list((tmp_path / "out" / "parts").glob("*.journal"))


def test_a_journal_tells_a_fault_from_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "part.journal"
    fault = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1\n"
    path.write_text(f"[0, 1]\ndone\n[2, 3]\n{fault}[2]\ndone\n[3]\n{fault}" + "[7]\n" * KILLS)
    journal = Journal(path)
    journal.close(finished=True)
    assert journal.alone == {2, 3, 7}
    assert journal.blamed == {
        3: "it ended the process (Segmentation fault)",
        7: f"it ended the process (killed {KILLS} times)",
    }
    assert not path.exists()
    path.write_text("[7]\n" * (KILLS - 1))
    assert Journal(path).blamed == {}


def test_verbs_take_shards(
    tmp_path: Path, small_sd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_shards(tmp_path / "shards", 2, 3)
    words = [
        "--model=DreamBooth",
        f"--model.pretrained_model_name_or_path={small_sd}",
        "--data=PersonalizationDataModule",
        f"--data.instance_data_dir={source}",
        "--data.use_captions=true",
        "--trainer.accelerator=cpu",
    ]
    chain = f"--data.purifiers={CONFIGS / 'purifiers' / 'jpeg.yaml'}"
    main(["purify", *words, chain, "--output", str(tmp_path / "clean")])
    assert "6 pictures" in capsys.readouterr().out
    with tarfile.open(tmp_path / "clean" / "000001-shard-001.tar") as archive:
        assert archive.getnames()[:2] == ["00003.png", "00003.txt"]
        with Image.open(archive.extractfile("00003.png")) as made:
            assert made.size == (32, 40)
    attack = f"--data.attack={CONFIGS / 'attacks' / 'random_noise.yaml'}"
    main(["protect", *words, attack, "--data.attack.epsilon=8", "--output", f"{tmp_path}/safe"])
    before = [row for row in read(source) if isinstance(row, Row)]
    after = [row for row in read(tmp_path / "safe") if isinstance(row, Row)]
    assert [row.caption for row in before] == [row.caption for row in after]
    for old, new in zip(before, after, strict=True):
        given, made = (load_image(Path("x.png"), row.data) for row in (old, new))
        assert 0 < (given - made).abs().max() * 255 <= 8.01
    detector = f"--data.detector={CONFIGS / 'detectors' / 'qr.yaml'}"
    main(["detect", *words, detector, "--output", str(tmp_path / "found")])
    assert [len(row["boxes"]) for row in table(tmp_path / "found")] == [0] * 6


@pytest.mark.slow
def test_on_ray_the_same_rows_and_a_picture_that_ends_a_worker(ray: Any, tmp_path: Path) -> None:
    source = write_shards(tmp_path / "shards", 3, 4)
    detect(source, tmp_path / "local")
    with open_pool("ray", 2) as pool:
        detect(source, tmp_path / "ray", pool=pool)
        assert table(tmp_path / "ray") == table(tmp_path / "local")
        write_shard(source / "x.tar", {"0": encoded(0), "crash": encoded(1), "2": encoded(2)})
        tally = detect(source, tmp_path / "crashed", pool=pool)
        assert tally.rows == 14
        assert list(tally.failures) == ["000003-x/crash.png"]
        (tmp_path / "harm").mkdir()
        write_harm(tmp_path / "harm", tmp_path / "harmed")
        assert detect(tmp_path / "harm", tmp_path / "unharmed", pool=pool).rows == 1
    assert not (tmp_path / "harmed").exists()


def copied(source: str, small_sd: Path, output: Path, *more: str) -> list[str]:
    """Names of what `purify` writes."""
    main(
        [
            "purify",
            "--model=DreamBooth",
            f"--model.pretrained_model_name_or_path={small_sd}",
            "--data=PersonalizationDataModule",
            f"--data.instance_data_dir={source}",
            f"--data.purifiers={CONFIGS / 'purifiers' / 'jpeg.yaml'}",
            "--trainer.accelerator=cpu",
            f"--output={output}",
            *more,
        ]
    )
    kept = (path for path in output.rglob("*.png") if path.is_file())
    return sorted(str(path.relative_to(output)) for path in kept)


def test_files_of_one_name_in_several_folders_have_a_copy_each(
    small_sd: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(("anna/1.jpg", "anna/1.png", "anna/2.png", "ben/1.png")):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(number))
    wanted = ["anna/1.jpg.png", "anna/1.png.png", "anna/2.png", "ben/1.png"]
    assert copied(f"{tmp_path}/in/*/*", small_sd, tmp_path / "out") == wanted
    assert copied(f"{tmp_path}/in/anna/2*", small_sd, tmp_path / "one") == ["2.png"]


def test_a_name_twice_in_a_shard_has_a_copy_each(tmp_path: Path) -> None:
    output = Output(str(tmp_path), "shards")
    output.write("part", [Copy("a.png", b"1", "one"), Copy("a.png", b"2"), Copy("b.png", b"3")])
    with tarfile.open(tmp_path / "part.tar") as archive:
        assert archive.getnames() == ["a.png", "a.txt", "a-2.png", "b.png"]


def test_a_share_of_what_streams_is_refused(small_sd: Path, tmp_path: Path) -> None:
    data = PersonalizationDataModule(
        f"{tmp_path}/*.png", "a photo", attack=RandomNoise(), attack_share=0.5
    )
    backbone, copies = backbones.load(str(small_sd)), Copies(str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"data.attack_share is 0.5, and `protect` protects each"):
        copy_shards("protect", data, backbone, CPU, copies, "", InProcess(), 0)
