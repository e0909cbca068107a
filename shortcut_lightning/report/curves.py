"""Loss curves out of a CSV of logged numbers."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Curve(NamedTuple):
    """One logged quantity over optimiser steps."""

    name: str
    points: list[tuple[float, float]]  # (step, value), finite, in order of step

    def smoothed(self, width: int = 0) -> "Curve":
        """Centred running mean; the window is a twentieth of the curve unless `width` is given."""
        half = (width or max(1, len(self.points) // 20)) // 2
        means = []
        for i, (step, _) in enumerate(self.points):
            window = self.points[max(0, i - half) : i + half + 1]
            means.append((step, sum(value for _, value in window) / len(window)))
        return Curve(self.name, means)

    def thinned(self, most: int = 300) -> "Curve":
        """At most about `most` points, each the mean of as many neighbours."""
        stride = -(-len(self.points) // most) or 1
        groups = [self.points[i : i + stride] for i in range(0, len(self.points), stride)]
        return Curve(
            self.name,
            [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups],
        )


def read_losses(path: Path) -> list[Curve]:
    """The loss columns of a CSVLogger's `metrics.csv`; empty when there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else []) if "loss" in name and "epoch" not in name]
    curves = [Curve(name, _points(rows, name)) for name in names]
    return [curve for curve in curves if curve.points]


def _points(rows: Sequence[dict[str, str]], name: str) -> list[tuple[float, float]]:
    points = [(float(row["step"]), float(row[name])) for row in rows if row[name]]
    return [(step, value) for step, value in points if abs(value) < float("inf")]
