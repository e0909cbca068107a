"""From the reports of cells to numbers by arm, with intervals over subjects."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from shortcut_lightning.bench.matrix import Cell, Claim, Matrix
from shortcut_lightning.bench.rows import Rows, measured_in
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate

Values = dict[str, float]  # subject -> mean over seeds


LEVEL = 0.05  # of the claims of one matrix together


class Difference(NamedTuple):
    """An arm minus another, paired by subject."""

    against: str
    mean: float
    low: float
    high: float
    n: int  # subjects that both have
    p: float  # Wilcoxon signed-rank, two-sided; 1 where nothing differs


@dataclass
class Table:
    """All that the finished cells say.

    `values` is metric -> arm -> subject -> mean over seeds; `runs` is arm -> folders of its runs in
    the order of subjects.
    """

    arms: list[str] = field(default_factory=list)
    values: dict[str, dict[str, Values]] = field(default_factory=dict)
    runs: dict[str, list[Path]] = field(default_factory=dict)
    finished: int = 0
    wanted: int = 0

    def estimate(self, metric: str, arm: str) -> Estimate:
        """Mean over subjects with its bootstrap interval; NaN where there is nothing."""
        return mean_estimate(torch.tensor(list(self.values[metric].get(arm, {}).values())))

    def difference(self, metric: str, arm: str, against: str) -> Difference:
        """The first minus the second."""
        return paired(
            self.values.get(metric, {}).get(arm, {}),
            self.values.get(metric, {}).get(against, {}),
            against,
        )


class Measured(NamedTuple):
    """What one cell says of one metric."""

    arm: str
    subject: str
    metric: str
    value: float


def collect(
    matrix: Matrix, reports: Sequence[tuple[Cell, Path]], kept: Rows | None = None
) -> Table:
    """Reads the reports of finished cells; others are known by their rows alone."""
    kept = kept or Rows()
    rows = (row for values in kept.values.values() for row in values)
    measured = [each for cell, path in reports for each in _measured(cell, path)]
    measured += [Measured(row.arm, row.subject, row.metric, row.value) for row in rows]
    table = tabulated(matrix, measured)
    for cell, path in reports:
        table.runs.setdefault(cell.arm, []).append(path.parent)
    table.finished = len(reports) + len(kept.ran)
    return table


def _measured(cell: Cell, path: Path) -> Iterable[Measured]:
    report = json.loads(path.read_text("utf-8"))
    for name, value, _ in measured_in(report):
        yield Measured(cell.arm, cell.subject, name, value)


def tabulated(matrix: Matrix, measured: Iterable[Measured], also: Sequence[str] = ()) -> Table:
    """The table of what cells say, whether their runs are at hand or their rows alone; of metrics
    that `also` names beside those that the matrix shows."""
    table = Table(["/".join(levels) for levels in matrix.arms()])
    table.wanted = len(matrix.cells())
    asked = {*also, *(claim.metric for claim in matrix.claims)}
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for each in measured:
        name = each.metric
        shown = name in matrix.metrics if matrix.metrics else name.startswith("eval/")
        if shown or name in asked:
            by_arm = found.setdefault(name, {}).setdefault(each.arm, {})
            by_arm.setdefault(each.subject, []).append(each.value)
    names = dict.fromkeys([*(name for name in matrix.metrics if name in found), *found])
    table.values = {
        name: {
            arm: {subject: sum(many) / len(many) for subject, many in by_subject.items()}
            for arm, by_subject in found[name].items()
        }
        for name in names
    }
    return table


def paired(values: Values, others: Values, against: str = "") -> Difference:
    """Differences by subject, with a bootstrap interval over subjects and Wilcoxon's test."""
    subjects = [subject for subject in values if subject in others]
    differences = torch.tensor([values[s] - others[s] for s in subjects], dtype=torch.float64)
    estimate = mean_estimate(differences)
    return Difference(against, *estimate, wilcoxon(differences.tolist()))


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test; NaN without any difference to look at."""
    from scipy.stats import wilcoxon as signed_rank

    if not differences:
        return math.nan
    if not any(differences):
        return 1.0
    return float(signed_rank(differences).pvalue)


class Decision(NamedTuple):
    """What the cells say about a claim."""

    claim: Claim
    difference: Difference
    p: float  # Holm's, for all claims of the matrix together
    verdict: str  # "holds", "does not hold" or "undecided"


def holm(given: Sequence[float], asked: int = 0) -> list[float]:
    """Holm's adjusted p values (Scandinavian Journal of Statistics 6, 1979), in the order given.
    What was not measured yet counts as well, so that a later measurement takes no verdict back:
    NaN, which stays, and what makes `asked` more than are given."""
    tests = max(asked, len(given))
    known = sorted((p, number) for number, p in enumerate(given) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(given), 0.0
    for rank, (p, number) in enumerate(known):
        largest = max(largest, min(1.0, p * (tests - rank)))
        adjusted[number] = largest
    return adjusted


def verdict(claim: Claim, difference: Difference, p: float) -> str:
    """`holds` or `does not hold` where the interval leaves zero and the adjusted `p` is at most 5
    %; else `undecided`. The test needs six subjects for a single claim and more for several, so a
    small matrix decides nothing, whatever its intervals."""
    if math.isnan(difference.mean) or not p <= LEVEL:
        return "undecided"
    low, high = difference.low, difference.high
    if not claim.higher:
        low, high = -high, -low
    return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


def decided(table: Table, claims: Iterable[Claim], asked: int = 0) -> list[Decision]:
    """Each claim with its difference, NaN where nothing was measured yet, and its verdict; `asked`
    claims are to be decided in all."""
    claims = list(claims)
    differences = [table.difference(c.metric, c.arm, c.against) for c in claims]
    return [
        Decision(claim, difference, p, verdict(claim, difference, p))
        for claim, difference, p in zip(
            claims, differences, holm([d.p for d in differences], asked), strict=True
        )
    ]
