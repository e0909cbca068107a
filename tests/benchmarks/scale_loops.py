"""The loops that `scale.py` compares: a plain one, and a stream through a pool, timed part by part
where the part is done."""

import io
import os
import resource
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image

from shortcut_lightning import backbones
from shortcut_lightning.audit.streamed import MeasureRows
from shortcut_lightning.cluster import InProcess, Pool, Work, open_pool
from shortcut_lightning.cluster.sinks import Output
from shortcut_lightning.cluster.sources import parts_of
from shortcut_lightning.cluster.stream import Job, stream
from shortcut_lightning.concepts import QRCodeDetector
from shortcut_lightning.data.loading import preparation
from shortcut_lightning.data.shards import DetectRows
from shortcut_lightning.files.images import load_image
from shortcut_lightning.membership import CLiD, Engine
from shortcut_lightning.membership.pictures import Picture, content_key, prepared
from shortcut_lightning.pocket import world

CPU = torch.device("cpu")
SIDE = {"QR detector": 512, "CLiD": 64}
SHARDS = {"QR detector": 5, "CLiD": 6}
EACH = {"QR detector": 128, "CLiD": 16}  # of a shard; a part has fixed costs of its own


class Stamp(NamedTuple):
    """A part as the process saw it that did it."""

    process: int
    began: float  # seconds of the clock
    ended: float
    spent_before: float  # seconds of the processor
    spent: float
    peak: float  # MB, so far


def stamped(before: tuple[float, float]) -> Stamp:
    """Now; `before` is `now()` at the beginning."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    clock, spent = now()
    return Stamp(os.getpid(), before[0], clock, before[1], spent, peak)


def now() -> tuple[float, float]:
    """Clock and processor, in seconds."""
    return time.time(), time.process_time()


@dataclass
class Timed(Work):
    """A piece of work, with a stamp beside each result."""

    work: Work

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """See `Work`."""
        return self.work.ready(device)

    def __call__(self, part: Any) -> tuple[Any, Stamp]:
        """See `Work`."""
        before = now()
        return self.work(part), stamped(before)


@dataclass
class Timing:
    """A pool that keeps stamps, and what processes around the workers spend from the first result
    to the last."""

    pool: Pool
    stamps: list[Stamp] = field(default_factory=list)
    around: float = 0.0

    def map(
        self, work: Work, parts: Iterable[Any], device: torch.device
    ) -> Iterator[tuple[int, Any]]:
        """See `Pool`."""
        first: dict[int, float] = {}
        for number, (result, stamp) in self.pool.map(Timed(work), parts, device):
            self.stamps.append(stamp)
            spent = _spent()
            first = first or spent
            workers = {each.process for each in self.stamps}
            self.around = sum(s - first.get(p, 0.0) for p, s in spent.items() if p not in workers)
            yield number, result


def _spent() -> dict[int, float]:
    """Seconds of the processor of this process and its children, by process."""
    spent = {}
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            spent[process.pid] = sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return spent


class Task(NamedTuple):
    """Shards, and the two ways of doing one."""

    source: Path
    job: Callable[[], Job]
    plain: Callable[[Path, Path], None]  # one shard into one table
    each: int  # pictures of a shard
    count: int


class Cost(NamedTuple):
    """Of a picture, without the first part of each process."""

    rate: float  # pictures a second by the clock
    processor: float  # seconds of the processor where it is done
    around: float  # of the processes around


def task(kind: str, source: Path, shards: int = 0) -> Task:
    """Shards of drawn pictures in `source`, made where they are not."""
    count = shards or SHARDS[kind]
    if not source.exists():
        write_drawn(source, count, EACH[kind], SIDE[kind])
    make = _qr if kind == "QR detector" else _clid
    job, plain = make()
    return Task(source, job, plain, EACH[kind], count * EACH[kind])


def cost(task: Task, way: str, output: Path) -> Cost:
    """Does all shards, and counts from the end of each process's first."""
    timing = Timing(InProcess())
    if way == "plain":
        output.mkdir()
        for shard in sorted(task.source.iterdir()):
            before = now()
            task.plain(shard, output / f"{shard.stem}.parquet")
            timing.stamps.append(stamped(before))
    else:
        engine, _, workers = way.partition(" ")
        with open_pool(engine, int(workers or 1)) as pool:  # type: ignore[arg-type]
            timing.pool = pool
            through(timing, task.job(), str(task.source), output)
    return summed(timing, task.each)


def through(pool: Pool, job: Job, source: str, output: Path) -> None:
    """A stream as the verbs make it."""
    parts = parts_of(source, "source")
    stream(job, parts, Output(str(output), "parquet"), {}, pool, CPU, max_failures=0)


def summed(timing: Timing, each: int) -> Cost:
    """From stamps of parts of `each` pictures."""
    by_process: dict[int, list[Stamp]] = {}
    for stamp in sorted(timing.stamps, key=lambda stamp: stamp.began):
        by_process.setdefault(stamp.process, []).append(stamp)
    rate = spent = 0.0
    for stamps in by_process.values():
        done = each * (len(stamps) - 1)
        if done:
            rate += done / (stamps[-1].ended - stamps[0].ended)
            spent += stamps[-1].spent - stamps[0].spent
    done = each * (len(timing.stamps) - len(by_process))
    return Cost(rate, spent / done, timing.around / (each * max(1, len(timing.stamps) - 1)))


def write_drawn(folder: Path, shards: int, each: int, side: int) -> None:
    """Tars of people of the procedural world as JPEG, with captions."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as archive:
            for number in range(shard * each, (shard + 1) * each):
                drawn = world.draw(7, number)
                picture = Image.fromarray(drawn.image).resize(
                    (side, side), Image.Resampling.BICUBIC
                )
                data = io.BytesIO()
                picture.save(data, "JPEG", quality=90)
                for suffix, said in (("jpg", data.getvalue()), ("txt", drawn.caption.encode())):
                    member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    member.size = len(said)
                    archive.addfile(member, io.BytesIO(said))


def _samples(shard: Path) -> Iterator[tuple[str, bytes, str]]:
    """Name, picture and caption, as a few lines of tarfile have them."""
    with tarfile.open(shard) as archive:
        members = {member.name: member for member in archive}
        for name, member in members.items():
            if name.endswith(".jpg"):
                words = archive.extractfile(members[name.replace(".jpg", ".txt")])
                data = archive.extractfile(member)
                assert data is not None
                assert words is not None
                yield name, data.read(), words.read().decode()


def _table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def _qr() -> tuple[Callable[[], Job], Callable[[Path, Path], None]]:
    detector, side = QRCodeDetector(), SIDE["QR detector"]
    prepare = preparation(side, True)

    def plain(shard: Path, output: Path) -> None:
        names, images = [], []
        for name, data, _ in _samples(shard):
            names.append(name)
            images.append(prepare(load_image(Path(name), data)))
        found = detector.detect(torch.stack(images), names)
        boxes = [[box._asdict() for box in each] for each in found]
        _table([{"name": n, "boxes": b} for n, b in zip(names, boxes, strict=True)], output)

    return lambda: DetectRows(detector, side, True, 1024), plain


def _clid() -> tuple[Callable[[], Job], Callable[[Path, Path], None]]:
    engine = Engine(
        {"target": backbones.load("pocket").eval()}, images_per_chunk=16, progress=False
    )
    scores, side = {"CLiD": CLiD()}, SIDE["CLiD"]

    def plain(shard: Path, output: Path) -> None:
        pictures = []
        for name, data, caption in _samples(shard):
            image = prepared(load_image(Path(name), data), side)
            pictures.append(Picture(name, caption, content_key(image), image, side))
        rows = engine.bare().measure(pictures, scores, ["target"])["CLiD"]["target"]
        _table([{"name": p.name, "CLiD": rows[p.row].tolist()} for p in pictures], output)

    return lambda: MeasureRows(engine, scores, ["target"], "", False, None), plain
