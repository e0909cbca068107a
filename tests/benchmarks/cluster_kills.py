"""Kills actors, nodes and drivers of a cluster of three nodes at random moments, and compares.

    python tests/benchmarks/cluster_kills.py [--count 30] [--minutes 10] [--jobs detect audit ...]

The cluster is Ray's own simulated one, on this machine and its loopback; the driver is a process
that joins it. A trial runs a verb (`cluster_jobs.py`), sends one SIGKILL when some of its parts or
cells, by chance, are done, and lets it end; a killed driver is started again by the same command, a
killed node is replaced. Then the output must have each row once, with the bits that one process
without Ray writes. A row for each kill is added to results/cluster_kills.csv as it comes; the same
command goes on after the rows that are there. Ends with code 1 where a row is not right.
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
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from cluster_jobs import HERE, REPOSITORY, Job, jobs, prepare

RESULTS = HERE / "results" / "cluster_kills.csv"
VERBS = ("detect", "purify", "protect", "audit", "bench")
VICTIMS = ("actor", "node", "driver")
NODES = 3
# Before anything imports Ray: the loopback alone, and nobody is told.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ.setdefault("RAY_worker_niceness", "0")  # its own is 15, which starves on a busy machine


class Row(NamedTuple):
    """One kill."""

    job: str
    victim: str
    done: int  # parts or cells, before it
    of: int
    seconds: float  # until the job had ended
    drivers: int  # how often it was started
    right: bool


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
        """One of the processes that hold models or run cells; False where there is none."""
        import psutil

        actors = []
        for process in psutil.Process().children(recursive=True):
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:  # gone meanwhile
                continue
            if words.startswith("ray::") and ("MapWorker" in words or "_run" in words):
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
    nodes: Nodes, name: str, victim: str, folder: Path, rng: random.Random, wanted: dict[str, Any]
) -> Row:
    """Runs the job to its end through one kill."""
    job, output = jobs()[name], folder / f"{name}-killed"
    shutil.rmtree(output, ignore_errors=True)
    done, started, drivers = rng.randrange(job.most - 1), time.monotonic(), 1
    driver = _start(nodes, job, output)
    while len(list(output.glob(job.steps))) < done and driver.poll() is None:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.5) if done else rng.uniform(0, 20))
    if victim == "driver" and driver.poll() is None:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        drivers += 1
        driver = _start(nodes, job, output)
    elif victim == "node":
        nodes.kill_node(rng)
    elif victim == "actor":
        while driver.poll() is None and not nodes.kill_actor(rng):
            time.sleep(0.1)
    code = driver.wait()
    right = code == 0 and job.contents(output) == wanted
    return Row(name, victim, done, job.most, round(time.monotonic() - started, 1), drivers, right)


def _start(nodes: Nodes, job: Job, output: Path, engine: str = "ray") -> "subprocess.Popen[bytes]":
    """What it says goes to a file beside its output, which it runs beside."""
    words = job.words(output.name, engine, 2 if engine == "ray" else 1)
    with (output.parent / f"{output.name}.txt").open("ab") as said:
        own = nodes.environment() | {"SHORTCUT_LIGHTNING_CACHE": str(output.parent / "cache")}
        return subprocess.Popen(words, env=own, cwd=output.parent, stdout=said, stderr=said)


def unbroken(nodes: Nodes, name: str, folder: Path) -> dict[str, Any]:
    """What one process without Ray writes."""
    job, output = jobs()[name], folder / f"{name}-local"
    if not (folder / f"{name}-local.done").exists():
        shutil.rmtree(output, ignore_errors=True)
        if _start(nodes, job, output, "local").wait():
            raise SystemExit(f"{name} fails by itself; see {output}.txt")
        (folder / f"{name}-local.done").touch()
    return job.contents(output)


def campaign(
    names: Sequence[str], count: int, seed: int, folder: Path, results: Path, minutes: float = 600
) -> list[Row]:
    """`count` kills, the jobs and the victims by turns; rows that `results` has are not made again,
    and none is begun after so many minutes. All rows so far."""
    began, rows = time.monotonic(), read(results)
    if not folder.exists():
        folder.mkdir(parents=True)
        prepare(folder)
    nodes = Nodes()
    try:
        for number in range(len(rows), count):
            if time.monotonic() - began > minutes * 60:
                break
            name, victim = names[number % len(names)], VICTIMS[(number // len(names)) % 3]
            wanted = unbroken(nodes, name, folder)
            row = trial(nodes, name, victim, folder, random.Random(f"{seed} {number}"), wanted)
            print(json.dumps(row._asdict()), flush=True)  # noqa: T201
            rows.append(row)
            write(rows, results)
    finally:
        nodes.close()
    return rows


def read(results: Path) -> list[Row]:
    """The rows so far."""
    if not results.exists():
        return []
    with results.open(newline="") as file:
        return [
            Row(
                row["job"],
                row["victim"],
                int(row["done"]),
                int(row["of"]),
                float(row["seconds"]),
                int(row["drivers"]),
                row["right"] == "True",
            )
            for row in csv.DictReader(file)
        ]


def write(rows: Sequence[Row], results: Path) -> None:
    """All of them."""
    with results.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def main() -> int:
    """Runs the campaign, or a portion of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=600, help="No kill is begun after.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=list(jobs()), default=list(VERBS))
    parser.add_argument("--folder", type=Path, default=Path("runs/cluster_kills"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = campaign(
        given.jobs, given.count, given.seed, given.folder.resolve(), given.results, given.minutes
    )
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
