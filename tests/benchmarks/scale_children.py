"""One measurement of `scale.py` in a process of its own; it prints a line of JSON."""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import psutil

BEGAN = psutil.Process().create_time()
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "cluster")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
EACH = 500  # pictures of a shard


def memory(way: str, count: int, folder: Path) -> dict[str, float]:
    """Tiny pictures through a detector that is nearly free."""
    import scale_loops
    from shards import Bright, encoded, write_shard

    from shortcut_lightning.cluster import open_pool
    from shortcut_lightning.data.shards import DetectRows

    source = folder / "source"
    source.mkdir()
    write_shard(folder / "shard", {f"{number:04d}": encoded(number) for number in range(EACH)})
    for shard in range(count // EACH):
        os.link(folder / "shard", source / f"{shard:05d}.tar")
    engine, _, workers = way.partition(" ")
    with open_pool(engine, int(workers or 1)) as pool:  # type: ignore[arg-type]
        timing = scale_loops.Timing(pool)
        job = DetectRows(Bright(), 32, False, 1024)
        scale_loops.through(timing, job, str(source), folder / "out")
    workers_peak = max(stamp.peak for stamp in timing.stamps)
    told = {"driver MB": _peak(), "worker MB": workers_peak}
    clock = max(s.ended for s in timing.stamps) - min(s.began for s in timing.stamps)
    size = sum(path.stat().st_size for path in (folder / "out").glob("*.parquet"))
    shutil.rmtree(folder / "out")
    return told | {"pictures a second": count / clock, "bytes written": size / count}


def judging(kind: str, count: int, folder: Path) -> dict[str, float]:
    """Two sets of so many rows each."""
    import numpy as np

    from shortcut_lightning.audit import blind, near_hashes, streamed_looks
    from shortcut_lightning.audit.audit import Audit

    rng = np.random.default_rng(0)
    if kind.startswith("AUC"):
        for name, shift in (("m", 0.1), ("n", 0.0)):
            np.save(folder / f"{name}.npy", rng.normal(shift, 1, count).astype(np.float32))
        files = {"member_scores": f"{folder}/m.npy", "nonmember_scores": f"{folder}/n.npy"}
        audit = Audit(**files, direction="high", dataset=False)

        def work() -> object:
            return audit.run(folder / "out")
    elif kind == "near-copies":
        first, mirrored, second = rng.integers(0, 2**63 - 1, (3, count), dtype=np.int64)

        def work() -> object:
            return [near_hashes.close_pairs(side, second, 10) for side in (first, mirrored)]
    else:
        each = min(count, streamed_looks.SAMPLE)
        words = np.array(
            ["a", "photo", "of", "the", "man", "dog", "cat", "red", "blue", "at night"]
        )
        captions = [" ".join(rng.choice(words, 8)) for _ in range(2 * each)]
        numbers = {
            "image statistics": rng.normal(size=(2 * each, 37)),
            "embeddings": rng.normal(size=(2 * each, 64)),
            "file metadata": rng.normal(size=(2 * each, 7)),
        }

        def work() -> object:
            found = [("captions", blind.bag_of_words(captions)), *numbers.items()]
            return blind.judged(found, np.repeat([1, 0], each), 0)

    before, clock, spent = _peak(), time.monotonic(), time.process_time()
    work()
    return {
        "processor s": time.process_time() - spent,
        "clock s": time.monotonic() - clock,
        "MB more": _peak() - before,
    }


def start(way: str, folder: Path) -> dict[str, float]:
    """Detection in one shard of one tiny picture."""
    import scale_loops
    from shards import Bright, write_shards

    from shortcut_lightning.cluster import open_pool
    from shortcut_lightning.data.shards import DetectRows

    engine, _, workers = way.partition(" ")
    count = int(workers or 1)
    source = write_shards(folder / "source", count, 1)
    with open_pool(engine, count) as pool:  # type: ignore[arg-type]
        timing = scale_loops.Timing(pool)
        job = DetectRows(Bright(), 32, False, 1024)
        scale_loops.through(timing, job, str(source), folder / "out")
    first = min(stamp.began for stamp in timing.stamps) - BEGAN
    workers = sum(stamp.spent_before for stamp in timing.stamps if stamp.process != os.getpid())
    return {
        "s to the first picture": first,
        "s in all": time.time() - BEGAN,
        "processor s": time.process_time() + workers,  # without those of Ray's own processes
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures one thing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("memory", "statistics", "start"))
    parser.add_argument("kind")
    parser.add_argument("count", nargs="?", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    if given.what == "memory":
        told = memory(given.kind, given.count, given.folder)
    elif given.what == "statistics":
        told = judging(given.kind, given.count, given.folder)
    else:
        told = start(given.kind, given.folder)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
