"""Tables over runs that learn or erase a concept, from kept rows.

    python -m shortcut_lightning.results.erasing ROWS --recipe configs/bench/erasing.yaml
    python -m shortcut_lightning.results.erasing --runs runs/unlearning --keep ROWS

(the second takes over the reports of configs/erasing/table/unlearning.sh as rows).

A ratio is pooled over the runs (trainings with other seeds and other starting noise) and all their
subjects, with Wilson's interval over all their images; other numbers are means over cells. The
ordering of arXiv 2310.05873 is answered step by step, by the runs that both arms have: `>` wants
Newcombe's interval (Statistics in Medicine 17, 1998) of the pooled difference above zero, `>>`
above ten points, `>=` above minus ten points, `~` inside ten points either way; `>` and `>>` also
want the same sign in each run.
Wholly on the other side is "does not hold", the rest "undecided". The interval is over images, not
over trainings: with fewer than three runs nothing is decided, and what these runs alone would say
stands in brackets.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from pathlib import Path

import yaml

from shortcut_lightning.bench.rows import Rows, Value
from shortcut_lightning.bench.tables import beside_earlier
from shortcut_lightning.files.code import deciding_code
from shortcut_lightning.metrics.concept_ratio import concept_ratio
from shortcut_lightning.report.markdown import lines

MARGIN = 0.1
RUNS = 3  # fewer decide nothing
RATIO = "eval/concept_ratio"
ORDER = [
    ("plain", ">>", "name"),
    ("name", ">", "geometry"),
    ("geometry", ">=", "full"),
    ("full", "~", "clean"),
    ("plain", ">>", "full"),
    ("name", ">", "learned name"),
    ("learned name", ">", "geometry"),
    ("full", "~", "masked"),
    ("plain drop", ">", "geometry"),
    ("learned name", ">", "geometry no drop"),
    ("plain", ">>", "full no drop"),
]
MEANS = {
    "eval/kid_pocket": "kernel distance x 1000",
    "eval/fid_pocket": "Frechet distance",
    "eval/f_star_r_pocket": "F*R",
    "eval/clip_t": "CLIP alignment",
}
SCALE = {"eval/kid_pocket": 1000.0}
Spread = tuple[float, float, float]  # value and its interval
SCRIPT = ("run", "concept", "arm")  # folders of unlearning.sh


@dataclass
class Arm:
    """All runs of an arm."""

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)  # with the concept, of all
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, run: str, values: Iterable[Value]) -> None:
        """Takes in what one run measured."""
        for each in values:
            self.values[each.metric].append(each.value)
            if each.metric == RATIO:
                shows, images = self.counts.get(run, (0, 0))
                self.counts[run] = shows + round(each.value * each.n), images + each.n

    @property
    def images(self) -> int:
        """Pictures of all runs."""
        return sum(images for _, images in self.counts.values())

    def ratio(self, runs: Iterable[str]) -> Spread:
        """Share with the concept over these runs together, with its interval."""
        shows, images = map(sum, zip(*(self.counts[run] for run in runs), strict=True))
        value, low, high, _ = concept_ratio([True] * shows + [False] * (images - shows))
        return value, low, high


class ErasingTables:
    """What the rows of one folder say, as Markdown.

    Args:
        folder: Folder of `cells.csv` and `values.csv`.
        factors: Names of the parts of an arm, divided by `/`: `run` (where there is none, seeds
            are the runs), `concept` (may be missing), and what was done.

    Raises:
        ValueError: no rows are there, or an arm of theirs has other parts.
    """

    def __init__(self, folder: Path, factors: Sequence[str] = SCRIPT) -> None:
        self._folder, self._rows = folder, Rows.read(folder)
        if not self._rows.ran:
            raise ValueError(f"{folder} has no rows; 'bench --rows {folder}' adds them.")
        for arm, *_ in self._rows.ran:
            if arm.count("/") + 1 != len(factors):
                wanted = " / ".join(factors)
                raise ValueError(
                    f"{folder / 'cells.csv'}: '{arm}' does not have the parts {wanted}; "
                    "the matrix was another when it was run."
                )
        self._factors = factors

    @cached_property
    def arms(self) -> dict[str, dict[str, Arm]]:
        """Concept (empty where there is one only) -> arm -> its runs."""
        found: dict[str, dict[str, Arm]] = defaultdict(lambda: defaultdict(Arm))
        for (arm, _, seed), values in self._rows.values.items():
            levels = dict(zip(self._factors, arm.split("/"), strict=True))
            run, concept = levels.pop("run", str(seed)), levels.pop("concept", "")
            name = "/".join(levels.values())
            found[concept][name.removesuffix("/none")].add(run, values)
        return found

    @property
    def concepts(self) -> list[str]:
        """Those that have rows."""
        return list(self.arms)

    @property
    def runs(self) -> int:
        """How many trainings an arm has at most."""
        return max(len(arm.counts) for arms in self.arms.values() for arm in arms.values())

    @property
    def cells(self) -> int:
        """How many runs there are rows of."""
        return len(self._rows.ran)

    def ratio(self, arm: str, concept: str = "") -> str:
        """Share of pictures with the concept over an arm's runs; a dash where there is none."""
        found = self.arms[concept].get(arm)
        return spread(found.ratio(found.counts)) if found else "–"

    def floor(self, concept: str = "") -> str:
        """How often the counting network fires on clean held-out pictures."""
        arms = self.arms[concept].values()
        floors = [v for arm in arms for v in arm.values.get("eval/concept_ratio_floor", [])]
        return f"{floors[0]:.3f}" if floors else "–"

    def table(self, concept: str = "") -> str:
        """A row for each arm."""
        arms = self.arms[concept]
        names = [name for name in MEANS if any(name in arm.values for arm in arms.values())]
        means = [MEANS[name] for name in names]
        head = ["arm / sampling", "concept ratio", *means, "images", "runs"]
        return "\n".join(lines(head, [_row(*each, names) for each in arms.items()]))

    def again(self) -> str:
        """Ratios of `earlier.csv` (concept, arm, value with its digits, runs) beside those of as
        many runs here: how many are the same, and a table of the others. Empty without the file."""
        file = self._folder / "earlier.csv"
        if not file.exists():
            return ""
        measured = []
        for row in csv.DictReader(file.read_text("utf-8").splitlines()):
            found = self.arms[row["concept"]].get(row["arm"])
            if found and len(found.counts) == int(row["runs"]):
                of = row["concept"], row["arm"]
                measured.append((of, row["value"], found.ratio(found.counts)[0]))
        return beside_earlier(["concept", "arm"], measured)

    def ordering(self, concept: str = "") -> str:
        """The steps of the paper's ordering that both arms were run for; empty where none is."""
        arms = self.arms[concept]
        body = [
            _step(arms[first], relation, arms[second], f"{first} {relation} {second}")
            for first, relation, second in ORDER
            if first in arms and second in arms and shared(arms[first], arms[second])
        ]
        head = ["step", "difference", "in each run", "answer"]
        return "\n".join(lines(head, body)) if body else ""


def shared(first: Arm, second: Arm) -> list[str]:
    """The runs that both have."""
    return [run for run in first.counts if run in second.counts]


def by_run(first: Arm, second: Arm) -> list[float]:
    """First minus second in each run that both have."""
    return [first.ratio([run])[0] - second.ratio([run])[0] for run in shared(first, second)]


def difference(first: Arm, second: Arm) -> Spread:
    """First minus second, pooled over the runs that both have, with Newcombe's interval (method
    10)."""
    runs = shared(first, second)
    return minus(first.ratio(runs), second.ratio(runs))


def minus(first: Spread, second: Spread) -> Spread:
    """First minus second of independent estimates, with Newcombe's interval."""
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    low = a - b - sqrt((a - a_low) ** 2 + (b_high - b) ** 2)
    return a - b, low, a - b + sqrt((a_high - a) ** 2 + (b - b_low) ** 2)


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


def factors_of(recipe: Path) -> list[str]:
    """Names of a matrix's factors."""
    return list(yaml.safe_load(recipe.read_text("utf-8"))["factors"])


def of_runs(folder: Path) -> Rows:
    """Rows of the runs of unlearning.sh, each in its newest version, from
    `run/concept/arm/version_N`."""
    paths = folder.glob("*/*/*/version_*/report.json")
    by_number = sorted(paths, key=lambda path: int(path.parts[-2].removeprefix("version_")))
    rows = Rows()
    for parts, path in {path.parts[-5:-2]: path for path in by_number}.items():
        report = json.loads(path.read_text("utf-8"))
        rows.take(
            ("/".join(parts), "sets", report.get("seed") or 0),
            path,
            hashlib.sha256((path.parent / "config.yaml").read_bytes()).hexdigest()[:16],
            deciding_code(),
            round(sum(report.get("seconds", {}).values()), 1),
        )
    return rows


def _row(label: str, arm: Arm, names: Sequence[str]) -> list[str]:
    means = []
    for name in names:
        many = arm.values.get(name, [])
        mean = SCALE.get(name, 1) * sum(many) / len(many) if many else None
        means.append("–" if mean is None else f"{mean:.3g}")
    return [label, spread(arm.ratio(arm.counts)), *means, str(arm.images), str(len(arm.counts))]


def _step(first: Arm, relation: str, second: Arm, text: str) -> list[str]:
    middle, low, high = difference(first, second)
    said = answer(first, relation, second)
    if len(shared(first, second)) < RUNS:
        said = f"undecided (these runs: {said})"
    runs = ", ".join(f"{each:+.2f}" for each in by_run(first, second))
    return [text, f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]", runs, said]


def spread(ratio: Spread) -> str:
    """Value and interval."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*ratio)


def main() -> None:
    """Prints the tables of a folder of rows, or takes over runs as rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", type=Path, nargs="?", help="folder of cells.csv and values.csv")
    parser.add_argument("--recipe", type=Path, help="the matrix that made them")
    parser.add_argument("--runs", type=Path, help="folder of unlearning.sh")
    parser.add_argument("--keep", type=Path, help="where to keep its rows")
    given = parser.parse_args()
    if given.runs and given.keep:
        rows = Rows.read(given.keep)
        rows.add(of_runs(given.runs))
        rows.write(given.keep)
    folder = given.rows or given.keep
    if not folder or (given.runs and not given.keep):
        parser.error("give a folder of rows, or --runs and --keep")
    tables = ErasingTables(folder, factors_of(given.recipe) if given.recipe else SCRIPT)
    for concept in tables.concepts:
        floor = f"The counting network on clean held-out pictures: {tables.floor(concept)}."
        parts = [f"### {concept or folder.name}", tables.table(concept), floor]
        sys.stdout.write("\n\n".join([*parts, tables.ordering(concept), ""]))


if __name__ == "__main__":
    main()
