"""Plots for the page. They scale with the window and take their colours from the page's style."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from shortcut_lightning.report.axis import Axis, number
from shortcut_lightning.report.curves import Curve
from shortcut_lightning.report.page import fill


@dataclass(frozen=True)
class Measured:
    """One value with its interval, as a row of a dot-and-whisker plot."""

    label: str
    value: float
    low: float
    high: float
    n: int
    kind: str = "tuned"  # colours the row: "tuned" or "base"


@dataclass(frozen=True)
class Comparison:
    """A metric and the rows that share its axis."""

    title: str
    note: str
    rows: Sequence[Measured]


def whiskers(comparisons: Sequence[Comparison]) -> Markup:
    """A table of metrics with dots for values and lines for intervals."""
    scaled = [
        {"metric": c, "axis": Axis.around([x for r in c.rows for x in (r.low, r.value, r.high)])}
        for c in comparisons
    ]
    return fill("whiskers.html", metrics=scaled)


def lines(curves: Sequence[Curve], x_label: str, raw: Sequence[Curve] = ()) -> Markup:
    """Curves on common axes; `raw` is drawn faintly behind, curve by curve in the same colour."""
    points = [point for curve in [*curves, *raw] for point in curve.points]
    if not points:
        return Markup("<p class='quiet'>Nothing was logged.</p>")
    x_axis = Axis.around([x for x, _ in points], air=0.0)
    # Single outliers of the raw curve are cut off rather than allowed to flatten the rest.
    ordered = sorted(y for _, y in points)
    y_axis = Axis.around([ordered[0], ordered[int(0.99 * (len(ordered) - 1))]])

    def path(curve: Curve) -> str:
        return " ".join(
            f"{x_axis.percent(x):.2f},{100 - y_axis.percent(y):.2f}" for x, y in curve.points
        )

    return fill(
        "lines.html",
        paths=[(curve.name, path(curve)) for curve in curves],
        raw=[path(curve) for curve in raw],
        x=x_axis,
        y=y_axis,
        x_label=x_label,
    )


def bars(values: Mapping[str, float], unit: str) -> Markup:
    """Horizontal bars with their numbers, longest bar as wide as the column."""
    longest = max(values.values(), default=0) or 1.0
    rows = [(name, value, 100 * value / longest) for name, value in values.items()]
    return fill("bars.html", rows=rows, unit=unit, number=number)
