"""Ends the program at random moments, runs the same command to its end, and compares the results.

    python tests/benchmarks/kills.py [--count 100] [--seed 0] [--jobs fit ema ...] [--folder kills]

Each trial starts a command in a folder of its own, sends SIGKILL (two times in three), SIGTERM or
SIGINT at a moment that is uniform over the time an unbroken run takes, and starts the same command
again, unless it had just said that all is written. Then the results have to have the same bits as
those of the unbroken run, and nothing may be left over: no half-written file, nothing in the folder
of temporary files, no process. Writes a row for each kill to tests/benchmarks/results/kills.csv as
it comes; ends with code 1 where a row is not as it should be.
"""

import argparse
import csv
import hashlib
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
from typing import NamedTuple

import yaml

REPOSITORY = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "kills.csv"
SIGNALS = [signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT]
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
ENDS_WITHIN = 60.0  # seconds that a told process has, and that one which was killed leaves others

# What an unbroken run leaves there as well: a library's session mark, and torch's empty folder.
LIBRARIES = (".ses", "torchinductor_")

FIT = {
    "data.with_prior_preservation": "false",
    "data.evaluation.images_per_prompt": "1",
    "data.evaluation.base": "false",
    "model.sampling.num_inference_steps": "2",
    "trainer.max_steps": "6",
    "trainer.enable_progress_bar": "false",
    "ckpt_path": "last",
}
QUICKSTART = str(REPOSITORY / "configs" / "quickstart.yaml")
AUDIT = {
    "audit": {
        "target": {"pretrained_model_name_or_path": "pocket"},
        "members": "inputs/members",
        "nonmembers": "inputs/nonmembers",
        "caption": "a photo of a person",
        "scores": {"CLiD_th": {"class_path": "CLiDThreshold", "init_args": {"n_t": 2}}},
        "headline": "CLiD_th",
        "statistics": {"resamples": 100},
        "dataset": False,
        "controls": {"captions": False, "blind": False},
    }
}


class Job(NamedTuple):
    """A command and the files that hold its result, below its folder."""

    words: list[str]
    results: Sequence[str]
    newest: str = ""  # where runs are: only the newest that has a report counts
    last_words: bytes = b"nobody says this"  # of a run that has nothing left to do


def options(settings: dict[str, str]) -> list[str]:
    """Command-line words of settings."""
    return [f"--{key}={value}" for key, value in settings.items()]


def jobs() -> dict[str, Job]:
    """All commands by name."""
    run = ["export/**/*", "samples/**/*.png", "metrics"]
    copies = ["out/*.png"]
    fit = ["fit", "--config", QUICKSTART, *options(FIT)]
    ema = ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.9"]
    stage = ["--config", QUICKSTART, "--output=out", "--data.instance_data_dir=inputs/members"]
    attack = ["--data.attack=PhotoGuardEncoder", "--data.attack.steps=60"]
    return {
        "fit": Job(fit, run, "runs/quickstart"),
        "ema": Job([*fit, *ema], run, "runs/quickstart"),
        "protect": Job(["protect", *stage, *attack], copies, last_words=b"written to out"),
        "purify": Job(
            ["purify", *stage, "--data.purifiers+=TotalVariation", "--data.resolution=64"],
            copies,
            last_words=b"written to out",
        ),
        "audit": Job(["audit", "--config", "audit.yaml"], ["runs/audit-audit/scores.csv"]),
        "bench": Job(["bench", "--config", "matrix.yaml", "--workers=2"], ["out/table.csv"]),
    }


def prepare(folder: Path) -> None:
    """What the commands read, in a new folder."""
    from shortcut_lightning.pocket import world

    for number, part in enumerate(("members", "nonmembers")):
        drawn = folder / "drawn" / part
        drawn.mkdir(parents=True)
        world.write_subject(number + 1, drawn)
        shutil.copytree(drawn / "instance", folder / "inputs" / part)
    shutil.rmtree(folder / "drawn")
    (folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT))
    cell = yaml.safe_load(Path(QUICKSTART).read_text())
    cell["trainer"] |= {"max_steps": 2, "enable_progress_bar": False}
    cell["model"]["init_args"]["sampling"]["num_inference_steps"] = 2
    cell["data"]["init_args"]["with_prior_preservation"] = False
    cell["data"]["init_args"]["evaluation"]["images_per_prompt"] = 1
    (folder / "cell.yaml").write_text(yaml.safe_dump(cell))
    matrix = {
        "base": ["cell.yaml"],
        "subjects": ["pocket:0", "pocket:1"],
        "factors": {"rate": {"low": {}, "high": {"model.learning_rate": 1e-3}}},
        "output_dir": "out",
    }
    (folder / "matrix.yaml").write_text(yaml.safe_dump(matrix, sort_keys=False))


def start(job: Job, folder: Path) -> "subprocess.Popen[bytes]":
    """Runs the command in the folder, in a session of its own and with its own cache and folder of
    temporary files; what it says goes to said.txt."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "SHORTCUT_LIGHTNING_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
        "KILLS_TRIAL": str(folder),
    }
    environment.setdefault("OMP_NUM_THREADS", "1")
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), *job.words],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
            # Jobs in the background of a script ignore it, and so would this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def bits(job: Job, folder: Path) -> str:
    """A hash of the results; "" where there are none."""
    root = folder
    if job.newest:
        reports = sorted(
            (folder / job.newest).glob("*/report.json"), key=lambda path: path.stat().st_mtime
        )
        if not reports:
            return ""
        root = reports[-1].parent
    digest, found = hashlib.sha256(), 0
    for pattern in job.results:
        if pattern == "metrics":
            metrics = json.loads((root / "report.json").read_text())["metrics"]
            digest.update(json.dumps(metrics, sort_keys=True).encode())
            continue
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                found += 1
                digest.update(str(path.relative_to(root)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16] if found else ""


def left_over(folder: Path) -> list[str]:
    """Half-written files, temporary files and processes of a trial."""
    halves = [path for path in folder.rglob("*") if path.name.endswith((".part", ".tmp"))]
    temporary = [path for path in (folder / "tmp").iterdir() if not path.name.startswith(LIBRARIES)]
    files = sorted({str(path.relative_to(folder)) for path in halves + temporary})
    return files + [f"process {number}" for number in processes(folder)]


def processes(folder: Path) -> list[int]:
    """Of this trial; told by what they were started with, so on Linux alone."""
    mark, found = f"KILLS_TRIAL={folder}".encode(), []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
        except OSError:  # ended meanwhile, or not ours
            continue
    return found


def gone(folder: Path) -> list[int]:
    """Processes of a trial that are still there after a while."""
    until = time.monotonic() + ENDS_WITHIN
    while (there := processes(folder)) and time.monotonic() < until:
        time.sleep(0.2)
    return there


class Row(NamedTuple):
    """One kill."""

    job: str
    signal: str
    after: float  # seconds
    code: int
    orphans: int
    again: int  # code of the run that went on
    same: bool
    left: str

    @property
    def right(self) -> bool:
        """Whether all is as it should be."""
        # One that had ended, or was ending, when the signal came has its own code.
        asked = self.code in (0, CODES[signal.Signals[self.signal]], -signal.Signals[self.signal])
        return asked and not self.orphans and self.again == 0 and self.same and not self.left


def trial(name: str, job: Job, folder: Path, chance: random.Random, whole: float, want: str) -> Row:
    """Kills once and goes on to the end."""
    number, moment = chance.choice(SIGNALS), chance.uniform(0.5, whole)
    process = start(job, folder)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    code = process.wait(ENDS_WITHIN)
    orphans = len(gone(folder))
    # Copies that are all there are not made again: the command would refuse, as it should.
    done = job.last_words in (folder / "said.txt").read_bytes()
    again = 0 if done else start(job, folder).wait()
    gone(folder)
    same = bits(job, folder) == want
    left = " ".join(left_over(folder))
    return Row(name, number.name, round(moment, 1), code, orphans, again, same, left)


def campaign(
    names: Sequence[str], count: int, seed: int, folder: Path, results: Path | None = None
) -> list[Row]:
    """`count` kills, spread over the jobs in turn; rows so far stand in `results`. Folders of those
    that went right are removed."""
    chance, rows = random.Random(seed), []
    inputs = folder / "inputs"
    prepare(inputs)
    known: dict[str, tuple[float, str]] = {}
    for number in range(count):
        name = names[number % len(names)]
        job = jobs()[name]
        if name not in known:
            known[name] = unbroken(job, inputs, folder / f"{name}-unbroken")
        own = folder / f"{name}-{number}"
        shutil.copytree(inputs, own)
        row = trial(name, job, own, chance, *known[name])
        sys.stdout.write(f"{number + 1}/{count} {'right' if row.right else 'WRONG'} {row}\n")
        sys.stdout.flush()
        rows.append(row)
        if results:
            write(rows, results)
        if row.right:
            shutil.rmtree(own)
    return rows


def unbroken(job: Job, inputs: Path, folder: Path) -> tuple[float, str]:
    """Seconds and results of a run that nobody ends."""
    shutil.copytree(inputs, folder)
    began = time.monotonic()
    code = start(job, folder).wait()
    seconds, result = time.monotonic() - began, bits(job, folder)
    if code or not result:
        raise SystemExit(f"{job.words[0]} fails by itself; see {folder / 'said.txt'}")
    return seconds, result


def write(rows: Sequence[Row], path: Path) -> None:
    """The table, a row for each kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*Row._fields, "right"])
        writer.writerows([*row, row.right] for row in rows)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=list(jobs()), default=list(jobs()))
    parser.add_argument("--folder", type=Path, default=Path("runs/kills"), help="Must be new.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    folder, results = given.folder.resolve(), given.results.resolve()
    rows = campaign(given.jobs, given.count, given.seed, folder, results)
    wrong = sum(not row.right for row in rows)
    sys.stdout.write(f"{len(rows)} kills, {wrong} wrong; {given.results}\n")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    main()
