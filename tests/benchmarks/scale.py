"""How the verbs grow with pictures and workers: speed, memory, statistics, start, decoding.

    python tests/benchmarks/scale.py [--parts speed memory ...] [--rounds 3]
    python tests/benchmarks/scale_page.py      # results/scale.md from the rows

Each part and kind replaces its rows in results/scale.csv. Speed: the plain loop that a user would
write, this program in one process, and Ray with one and two workers, in turns, over the same
shards; the first part of each process, in which things are loaded, is left out. Seconds of the
processor stand beside those of the clock: on a busy machine they are the fairer ones.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "cluster")]
RESULTS = Path(__file__).parent / "results" / "scale.csv"
PARTS = ("speed", "memory", "statistics", "start", "decoding")
COUNTS = (1_000, 10_000, 100_000)
SCORES = (1_000, 10_000, 100_000, 1_000_000)
WAYS = ("plain", "local", "ray 1", "ray 2")
KINDS = ("QR detector", "CLiD")
# Before anything imports Ray: its own, small, on the loopback.
os.environ |= {
    "RAY_ADDRESS": "local",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # its own is 15: others on the machine would be measured
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(120 * 2**20),
}


class Row(NamedTuple):
    """A number. `part` and `kind` say of what, `way` how it was done, `size` with how many."""

    part: str
    kind: str
    way: str
    size: int
    what: str
    value: float


def speed(rounds: int, folder: Path, kinds: Sequence[str] = KINDS, shards: int = 0) -> list[Row]:
    """Pictures a second by the clock and milliseconds of the processor a picture, medians over
    rounds; and the overhead, the median over rounds of a ratio to the plain loop."""
    import scale_loops

    from shortcut_lightning.cluster import open_pool

    rows = []
    with open_pool("ray", 2):  # one Ray for all
        for kind in kinds:
            task = scale_loops.task(kind, folder / kind, shards)
            found: dict[str, list[scale_loops.Cost]] = {way: [] for way in WAYS}
            for number in range(rounds):
                for way in WAYS:
                    found[way].append(
                        scale_loops.cost(task, way, folder / f"{kind}-{number}-{way}")
                    )
                    sys.stderr.write(f"{kind} {way} {found[way][-1]}\n")
            for way, costs in found.items():
                ratios = [
                    each.processor / plain.processor - 1
                    for each, plain in zip(costs, found["plain"], strict=True)
                ]
                engine = [
                    each.around / plain.processor
                    for each, plain in zip(costs, found["plain"], strict=True)
                ]
                numbers = {
                    "pictures a second": statistics.median(each.rate for each in costs),
                    "processor ms": 1000 * statistics.median(each.processor for each in costs),
                    "overhead": statistics.median(ratios),
                    "overhead around": statistics.median(engine),
                }
                rows += [Row("speed", kind, way, task.count, *each) for each in numbers.items()]
    return rows


def memory(counts: Sequence[int]) -> list[Row]:
    """Peak MB of the driver and of a worker over so many tiny pictures and a detector that is
    nearly free, and pictures a second, the most that parts, journals and tables let through."""
    rows = []
    for way in ("local", "ray 1"):
        for count in counts:
            told = _child("memory", way, str(count))
            rows += [Row("memory", "tiny pictures", way, count, *each) for each in told.items()]
    return rows


def numbers(sizes: Sequence[int]) -> list[Row]:
    """Seconds of the processor and MB above the start of what judges two sets of so many rows."""
    rows = []
    for kind in ("AUC, TPR, bootstrap", "near-copies", "baselines without a model"):
        for size in sizes:
            told = _child("statistics", kind, str(size))
            rows += [Row("statistics", kind, "local", size, *each) for each in told.items()]
    return rows


def start() -> list[Row]:
    """Seconds from the command to the first picture, and until it has ended, less the work."""
    rows = []
    for way in ("local", "ray 1", "ray 2"):
        told = _child("start", way)
        rows += [Row("start", "one shard", way, 1, *each) for each in told.items()]
    return rows


def decoding(count: int = 60) -> list[Row]:
    """Milliseconds of the processor in which a JPEG of 512 pixels is read, checked and hashed."""
    import io
    import time

    from PIL import Image

    from shortcut_lightning.files.images import load_image
    from shortcut_lightning.membership.pictures import content_key, prepared
    from shortcut_lightning.pocket import world

    data = io.BytesIO()
    Image.fromarray(world.draw(7, 0).image).resize((512, 512)).save(data, "JPEG", quality=90)
    began = time.process_time()
    for _ in range(count):
        content_key(prepared(load_image(Path("x.jpg"), data.getvalue()), 512))
    spent = (time.process_time() - began) / count
    return [Row("decoding", "JPEG", "local", 512, "processor ms", 1000 * spent)]


def _child(*words: str) -> dict[str, float]:
    script = Path(__file__).with_name("scale_children.py")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), *words, "--folder", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    sys.stderr.write(f"{' '.join(words)} {done.stdout}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def read(path: Path) -> list[Row]:
    """The rows of a file."""
    with path.open(newline="") as file:
        return [
            Row(r["part"], r["kind"], r["way"], int(r["size"]), r["what"], float(r["value"]))
            for r in csv.DictReader(file)
        ]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Rows in place of those of the same parts and kinds."""
    new = {row[:2] for row in rows}
    kept = [row for row in read(path) if row[:2] not in new] if path.exists() else []
    everything = sorted([*kept, *rows], key=lambda row: PARTS.index(row.part))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows([*row[:-1], f"{row.value:.5g}"] for row in everything)


def main() -> None:
    """Measures, and writes the rows of each part as it is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for part in given.parts:
        if part == "speed":
            with tempfile.TemporaryDirectory() as folder:
                rows = speed(given.rounds, Path(folder), given.kinds)
        elif part == "memory":
            rows = memory(given.counts)
        elif part == "statistics":
            rows = numbers(SCORES)
        elif part == "start":
            rows = start()
        else:
            rows = decoding()
        write(given.results, rows)


if __name__ == "__main__":
    main()
