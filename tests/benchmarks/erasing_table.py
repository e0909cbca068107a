"""The tables of the erasing matrices, from the reports of what has run.

    python tests/benchmarks/erasing_table.py configs/bench/erasing.yaml [--output_dir FOLDER]
    python tests/benchmarks/erasing_table.py --runs FOLDER

(the second for the runs of configs/erasing/table/unlearning.sh).

A ratio is pooled over the runs (trainings with other seeds and other starting noise), with Wilson's
interval over all their images; other numbers are means over runs. The paper's ordering is answered
step by step, by the runs that both arms have: `>` wants Newcombe's interval (Statistics in Medicine
17, 1998) of the pooled difference above zero, `>>` above ten points, `>=` above minus ten points,
`~` inside ten points either way; `>` and `>>` also want the same sign in each run. Wholly on the
other side is "does not hold", the rest "undecided". The interval is over images, not over
trainings: with fewer than three runs nothing is decided, and what these runs alone would say stands
in brackets.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import yaml

from shortcut_lightning.bench.matrix import Matrix
from shortcut_lightning.bench.runner import Runner
from shortcut_lightning.metrics.concept_ratio import concept_ratio

MARGIN = 0.1
RUNS = 3  # fewer decide nothing
ORDER = [
    ("plain/none", ">>", "name/none"),
    ("name/none", ">", "geometry/none"),
    ("geometry/none", ">=", "full/none"),
    ("full/none", "~", "clean/none"),
    ("plain/none", ">>", "full/none"),
    ("name/none", ">", "learned name/none"),
    ("learned name/none", ">", "geometry/none"),
    ("full/none", "~", "masked/none"),
    ("plain drop/none", ">", "geometry/none"),
    ("learned name/none", ">", "geometry no drop/none"),
    ("plain/none", ">>", "full no drop/none"),
]
MEANS = {
    "eval/kid_pocket": "kernel distance x 1000",
    "eval/fid_pocket": "Frechet distance",
    "eval/f_star_r_pocket": "F*R",
    "eval/clip_t": "CLIP alignment",
}
SCALE = {"eval/kid_pocket": 1000.0}


@dataclass
class Arm:
    """All runs of an arm."""

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)  # with the concept, of all
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, run: str, metrics: dict) -> None:
        ratio = metrics["eval/concept_ratio"]
        self.counts[run] = round(ratio["value"] * ratio["n"]), ratio["n"]
        for name, entry in metrics.items():
            if entry["value"] is not None:
                self.values[name].append(entry["value"])

    @property
    def images(self) -> int:
        return sum(images for _, images in self.counts.values())

    def ratio(self, runs: Iterable[str]) -> tuple[float, float, float]:
        """Of these runs together, with its interval."""
        shows, images = map(sum, zip(*(self.counts[run] for run in runs), strict=True))
        value, low, high, _ = concept_ratio([True] * shows + [False] * (images - shows))
        return value, low, high


def collect(matrix: Matrix, folder: Path) -> dict[str, dict[str, Arm]]:
    """Concept -> arm and sampling -> its runs."""
    runner = Runner(matrix, folder, lambda words: None, lambda line: None)
    found: dict[str, dict[str, Arm]] = defaultdict(lambda: defaultdict(Arm))
    for cell, path in runner.reports():
        levels = dict(zip(matrix.factors, cell.levels, strict=True))
        run, concept = levels.pop("run", str(cell.seed)), levels.pop("concept", "")
        metrics = json.loads(path.read_text("utf-8"))["metrics"]
        found[concept]["/".join(levels.values())].add(run, metrics)
    return found


def of_runs(folder: Path) -> dict[str, dict[str, Arm]]:
    """Concept -> arm -> its runs, each in its newest version, from `run/concept/arm/version_N`."""
    found: dict[str, dict[str, Arm]] = defaultdict(lambda: defaultdict(Arm))
    paths = folder.glob("*/*/*/version_*/report.json")
    by_number = sorted(paths, key=lambda path: int(path.parts[-2].removeprefix("version_")))
    newest = {path.parts[-5:-2]: path for path in by_number}
    in_order = sorted(newest.items(), key=lambda item: item[1].stat().st_mtime)
    for (run, concept, arm), path in in_order:
        found[concept][arm].add(run, json.loads(path.read_text("utf-8"))["metrics"])
    return found


def shared(first: Arm, second: Arm) -> list[str]:
    """The runs that both have."""
    return [run for run in first.counts if run in second.counts]


def by_run(first: Arm, second: Arm) -> list[float]:
    """First minus second in each run that both have."""
    return [first.ratio([run])[0] - second.ratio([run])[0] for run in shared(first, second)]


def difference(first: Arm, second: Arm) -> tuple[float, float, float]:
    """First minus second, pooled over the runs that both have, with Newcombe's interval (method
    10)."""
    runs = shared(first, second)
    (a, a_low, a_high), (b, b_low, b_high) = first.ratio(runs), second.ratio(runs)
    middle = a - b
    return (
        middle,
        middle - sqrt((a - a_low) ** 2 + (b_high - b) ** 2),
        middle + sqrt((a_high - a) ** 2 + (b - b_low) ** 2),
    )


def answer(first: Arm, relation: str, second: Arm) -> str:
    """`holds`, `does not hold` or `undecided`."""
    middle, low, high = difference(first, second)
    if relation == "~":
        inside, outside = low > -MARGIN and high < MARGIN, low > MARGIN or high < -MARGIN
        return "holds" if inside else "does not hold" if outside else "undecided"
    bound = {">>": MARGIN, ">": 0.0, ">=": -MARGIN}[relation]
    signs = all((each > 0) == (middle > 0) for each in by_run(first, second))
    if low > bound and (signs or relation == ">="):
        return "holds"
    return "does not hold" if high < bound else "undecided"


def table(arms: dict[str, Arm]) -> list[str]:
    names = [name for name in MEANS if any(name in arm.values for arm in arms.values())]
    head = ["arm / sampling", "concept ratio", *(MEANS[name] for name in names), "images", "runs"]
    lines = [row(head), row(["---"] * len(head))]
    for label, arm in arms.items():
        value, low, high = arm.ratio(arm.counts)
        cells = [label, f"{value:.2f} [{low:.2f}, {high:.2f}]"]
        for name in names:
            many = arm.values.get(name, [])
            mean = SCALE.get(name, 1) * sum(many) / len(many) if many else None
            cells.append("–" if mean is None else f"{mean:.3g}")
        lines.append(row([*cells, str(arm.images), str(len(arm.counts))]))
    return lines


def ordering(arms: dict[str, Arm]) -> list[str]:
    lines = [row(["step", "difference", "in each run", "answer"]), row(["---"] * 4)]
    for first, relation, second in ORDER:
        if first in arms and second in arms and shared(arms[first], arms[second]):
            a, b = arms[first], arms[second]
            middle, low, high = difference(a, b)
            runs = ", ".join(f"{each:+.2f}" for each in by_run(a, b))
            text = f"{first} {relation} {second}"
            span = f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]"
            said = answer(a, relation, b)
            if len(shared(a, b)) < RUNS:
                said = f"undecided (these runs: {said})"
            lines.append(row([text, span, runs, said]))
    return lines if len(lines) > 2 else []


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("matrix", type=Path, nargs="?")
    parser.add_argument("--output_dir", default="")
    parser.add_argument("--runs", type=Path)
    given = parser.parse_args()
    if given.runs:
        found = of_runs(given.runs)
    elif given.matrix:
        settings = yaml.safe_load(given.matrix.read_text("utf-8"))
        if given.output_dir:
            settings["output_dir"] = given.output_dir
        found = collect(Matrix(**settings), given.matrix.resolve().parent)
    else:
        parser.error("give a matrix or --runs FOLDER")
    for concept, arms in found.items():
        floors = [
            v for arm in arms.values() for v in arm.values.get("eval/concept_ratio_floor", [])
        ]
        lines = [f"### {concept or given.matrix.stem}", "", *table(arms), ""]
        if floors:
            lines += [f"The counting network on clean held-out pictures: {floors[0]:.3f}.", ""]
        sys.stdout.write("\n".join([*lines, *ordering(arms), "", ""]))


if __name__ == "__main__":
    main()
