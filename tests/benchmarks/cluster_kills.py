"""Kills actors, nodes and drivers of a cluster of three nodes at random moments, and compares.

    python tests/benchmarks/cluster_kills.py [--count 30] [--seed 0] [--jobs rows detect purify]

The cluster is Ray's own simulated one, on this machine and its loopback; the driver is a process
that joins it. A trial runs a job over shards, sends one SIGKILL when some of them, by chance, are
done, and lets the job end; a killed driver is started again by the same command, a killed node is
replaced. Then the output must have each row once, with the bits that one process without Ray
writes. Writes a row for each kill to results/cluster_kills.csv; ends with code 1 where a row is not
right.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
RESULTS = HERE / "results" / "cluster_kills.csv"
JOBS = ("rows", "detect", "purify")
VICTIMS = ("actor", "node", "driver")
NODES = 3
sys.path.insert(0, str(HERE.parent / "cluster"))
# Before anything imports Ray: the loopback alone, and nobody is told.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}

_ROWS = """
import sys
sys.path.insert(0, {tests!r})
from shards import Measure
import torch
from shortcut_lightning.cluster import open_pool
from shortcut_lightning.cluster.sinks import Output
from shortcut_lightning.cluster.sources import parts_of
from shortcut_lightning.cluster.stream import stream
with open_pool({engine!r}, {workers}) as pool:
    stream(Measure(), parts_of({source!r}, "source"), Output({output!r}, "parquet"), {{}}, pool,
           torch.device("cpu"), max_failures=0)
"""


class Row(NamedTuple):
    """One kill."""

    job: str
    victim: str
    parts: int  # that were finished before it
    seconds: float  # until the job had ended
    drivers: int  # how often it was started
    right: bool


def command(job: str, source: Path, output: Path, engine: str) -> list[str]:
    """The driver's command line."""
    workers = 2 if engine == "ray" else 1
    if job == "rows":
        script = _ROWS.format(
            tests=str(HERE.parent / "cluster"),
            engine=engine,
            workers=workers,
            source=str(source),
            output=str(output),
        )
        return [sys.executable, "-c", script]
    configs = REPOSITORY / "configs"
    kind = {
        "detect": f"--data.detector={configs}/detectors/qr.yaml",
        "purify": f"--data.purifiers={configs}/purifiers/code_sr_pocket.yaml",
    }
    return [
        *(sys.executable, str(REPOSITORY / "train.py"), job, "--model=DreamBooth"),
        *("--model.pretrained_model_name_or_path=pocket", "--data=PersonalizationDataModule"),
        *(f"--data.instance_data_dir={source}", "--data.instance_prompt=a photo of a man"),
        *("--trainer.accelerator=cpu", kind[job], "--output", str(output)),
        *("--engine", engine, "--workers", str(workers)),
    ]


def contents(output: Path) -> dict[str, Any]:
    """What a job wrote: rows of tables and members of shards, by file."""
    import pyarrow.parquet as parquet

    found: dict[str, Any] = {}
    for path in sorted(output.glob("*.parquet")):
        found[path.name] = parquet.read_table(path).to_pylist()
    for path in sorted(output.glob("*.tar")):
        with tarfile.open(path) as archive:
            found[path.name] = [
                (member.name, opened.read())
                for member in archive
                if (opened := archive.extractfile(member))
            ]
    return found


class Nodes:
    """A cluster of three nodes with a CPU each, of which all but the first may be lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.settings = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={**self.settings, "include_dashboard": False},
        )
        for _ in range(NODES - 1):
            self.cluster.add_node(**self.settings)

    def environment(self) -> dict[str, str]:
        """Of drivers that join."""
        own = {"RAY_ADDRESS": self.cluster.address, "OMP_NUM_THREADS": "1"}
        return os.environ | own | {"PYTHONPATH": str(REPOSITORY)}

    def kill_actor(self, rng: random.Random) -> bool:
        """One of the processes that hold models; False where there is none."""
        import psutil

        actors = []
        for process in psutil.Process().children(recursive=True):
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:  # gone meanwhile
                continue
            if words.startswith("ray::") and "MapWorker" in words:
                actors.append(process)
        if not actors:
            return False
        rng.choice(actors).kill()
        return True

    def kill_node(self, rng: random.Random) -> None:
        """One that is not the first, with all its processes; another takes its place."""
        node = rng.choice(sorted(self.cluster.worker_nodes, key=lambda each: each.unique_id))
        self.cluster.remove_node(node, allow_graceful=False)
        self.cluster.add_node(**self.settings)

    def close(self) -> None:
        """Ends them all."""
        self.cluster.shutdown()


def trial(
    nodes: Nodes,
    job: str,
    victim: str,
    source: Path,
    output: Path,
    shards: int,
    rng: random.Random,
    wanted: dict[str, Any],
) -> Row:
    """Runs the job to its end through one kill."""
    parts, started, drivers = rng.randrange(shards - 1), time.monotonic(), 1
    words, settings = command(job, source, output, "ray"), {"env": nodes.environment()}
    driver = subprocess.Popen(words, **settings)  # type: ignore[call-overload]
    while len(list(output.glob("parts/*.json"))) < parts and driver.poll() is None:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.5))
    if victim == "driver" and driver.poll() is None:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        drivers += 1
        driver = subprocess.Popen(words, **settings)  # type: ignore[call-overload]
    elif victim == "node":
        nodes.kill_node(rng)
    elif victim == "actor":
        while driver.poll() is None and not nodes.kill_actor(rng):
            time.sleep(0.1)
    code = driver.wait()
    right = code == 0 and contents(output) == wanted and not list(output.rglob("*.part"))
    return Row(job, victim, parts, round(time.monotonic() - started, 1), drivers, right)


def campaign(jobs: Sequence[str], count: int, seed: int, folder: Path, shards: int) -> list[Row]:
    """`count` kills, the jobs and the victims by turns."""
    from shards import write_shards

    rng, rows = random.Random(seed), []
    source = write_shards(folder / "source", shards, 4)
    nodes = Nodes()
    try:
        wanted = {}
        for job in jobs:
            for engine in ("local", "ray"):
                words = command(job, source, folder / f"{job}-{engine}", engine)
                subprocess.run(words, env=nodes.environment(), check=True)
            wanted[job] = contents(folder / f"{job}-local")
            assert wanted[job] == contents(folder / f"{job}-ray"), job
        for number in range(count):
            job, victim = jobs[number % len(jobs)], VICTIMS[(number // len(jobs)) % 3]
            out = folder / f"out-{number}"
            row = trial(nodes, job, victim, source, out, shards, rng, wanted[job])
            print(json.dumps(row._asdict()), flush=True)  # noqa: T201
            rows.append(row)
            if row.right:
                shutil.rmtree(out)
    finally:
        nodes.close()
    return rows


def main() -> int:
    """Runs the campaign and writes its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--folder", type=Path, default=Path("cluster_kills"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    rows = campaign(given.jobs, given.count, given.seed, given.folder.resolve(), given.shards)
    with given.results.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
