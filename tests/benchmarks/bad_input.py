"""Gives the program inputs that are wrong in many ways, and counts how it answers.

    python tests/benchmarks/bad_input.py [--count 600] [--seed 0] [--kinds picture yaml ...]

Input `number` of a kind is made from (seed, kind, number) alone, in a fresh folder, and `main` runs
on it in this process. Writes a row for each to tests/benchmarks/results/bad_input.csv:

clean     refused in a line or two with exit code 2 (1 for numbers that are not finite), or done,
          where the input may be taken
wordy     refused, in more than two lines
traceback anything else was raised
hang      not answered within the limit
wrong     done with code 0, where the input has to be refused
strict    refused, where the input is a good one

Rows are written as they come, and the same command goes on after those that are there: remove the
file to begin anew. Ends with code 1 where a row is not clean.
"""

import argparse
import contextlib
import csv
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' small model
sys.path.insert(0, str(Path(__file__).parents[2]))

import bad_input_kinds as kinds
import bad_input_verbs

KINDS = {**kinds.KINDS, **bad_input_verbs.KINDS}
RESULTS = Path(__file__).parent / "results" / "bad_input.csv"
LIMIT = 120  # seconds that one input has, on a machine that others use too


class Row(NamedTuple):
    kind: str
    seed: str
    what: str
    outcome: str
    message: str


class Hang(BaseException):
    """The limit has passed."""


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer(argv: list[str]) -> tuple[str, str]:
    """What the program does with a command line: `done`, `refused`, `wordy`, `traceback` or `hang`,
    and the first line of what it says."""
    from shortcut_lightning.cli import main

    out, err = io.StringIO(), io.StringIO()
    try:
        with limit(LIMIT), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(argv)
    except Hang:
        return "hang", f"nothing within {LIMIT} s"
    except SystemExit as end:
        said = err.getvalue()
        told = said[said.find("error: ") :].strip().splitlines() if "error: " in said else []
        if end.code in (1, 2) and told and "Traceback" not in said:
            return "wordy" if len(told) > 2 else "refused", told[0]
        return "traceback", f"exit code {end.code}: {said.strip()[-200:]}"
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {str(error).strip()}"
    return "done", ""


def outcome(answered: str, expected: str) -> str:
    """The column `outcome` of an answer, where the input must be `refused`, `taken` or `either`."""
    if answered == "done":
        return "wrong" if expected == "refused" else "clean"
    if answered == "refused":
        return "strict" if expected == "taken" else "clean"
    return answered


def trial(kind: str, seed: str, made: kinds.Made) -> Row:
    """One input, made and run in a folder of its own."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            case = KINDS[kind](random.Random(f"{seed} {kind}"), made)
            answered, message = answer(case.argv)
        finally:
            os.chdir(home)
    line = " ".join(message.split())[:200].replace(name, ".").replace(str(made.folder), "MADE")
    line = line.replace(str(Path(__file__).parents[2]), "REPOSITORY")
    return Row(kind, seed, case.what, outcome(answered, case.expected), line)


def wanted(count: int, seed: int, named: list[str]) -> list[tuple[str, str]]:
    """Kind and seed of `count` inputs, the kinds in turn."""
    return [(named[n % len(named)], f"{seed}.{n // len(named)}") for n in range(count)]


def campaign(inputs: list[tuple[str, str]]) -> Iterator[Row]:
    """Makes and runs the inputs, one after another."""
    folder = Path(tempfile.mkdtemp(prefix="bad_input"))
    cache = os.environ.get("SHORTCUT_LIGHTNING_CACHE", "")
    os.environ["SHORTCUT_LIGHTNING_CACHE"] = str(folder / "cache")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            made = kinds.make(folder)
        for kind, seed in inputs:
            yield trial(kind, seed, made)
    finally:
        os.environ["SHORTCUT_LIGHTNING_CACHE"] = cache
        shutil.rmtree(folder)


def read(path: Path) -> list[Row]:
    """The rows that an earlier run wrote."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**row) for row in csv.DictReader(file)]


def write(rows: list[Row], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    begun = time.monotonic()

    rows = read(options.output)
    there = {row[:2] for row in rows}
    inputs = wanted(options.count, options.seed, options.kinds)
    for row in campaign([each for each in inputs if each not in there]):
        rows.append(row)
        write(rows, options.output)
        if row.outcome != "clean":
            sys.stdout.write(" | ".join(row) + "\n")
            sys.stdout.flush()
    counts = Counter(row.outcome for row in rows)
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{len(rows)} inputs ({seconds:.0f} s): {dict(counts)}\n")
    return int(set(counts) != {"clean"})


if __name__ == "__main__":
    sys.exit(run())
