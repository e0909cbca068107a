"""The result as CSV, Markdown and one HTML page."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup, escape
from PIL import Image

from shortcut_lightning.bench.matrix import Matrix
from shortcut_lightning.bench.results import Difference, Table, decided
from shortcut_lightning.files.atomic import atomic, write_text
from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.report import plots
from shortcut_lightning.report.markdown import lines
from shortcut_lightning.report.page import Page, Section, render
from shortcut_lightning.report.pictures import data_uri

_PICTURES = 4  # of each arm
_PICTURE = Markup('<img src="{}" alt="" style="display: inline; width: 96px; margin: 2px">')
_PICTURE_ROW = Markup('<tr><th>{}</th><td style="white-space: nowrap">{}</td></tr>')
_LEAD = "Means over subjects [95 % bootstrap interval] (subjects)."
_HEAD = ["arm", "minus", "difference", "subjects", "p (Wilcoxon)"]
CLAIM_HEAD = ["claim", "metric", "difference", "subjects", "p (Holm)", "verdict"]


def write(matrix: Matrix, table: Table, folder: Path) -> list[Path]:
    """Writes `table.csv`, `table.md` and `table.html`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"table.{kind}" for kind in ("csv", "md", "html")]
    _csv(matrix, table, paths[0])
    write_text(paths[1], markdown(matrix, table))
    write_text(paths[2], render(page(matrix, table)))
    return paths


def _csv(matrix: Matrix, table: Table, path: Path) -> None:
    """One row for each metric, arm and comparison; a first one without any."""
    with atomic(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["metric", "arm", *matrix.factors, *Estimate._fields]
            + [f"difference_{name}" for name in Difference._fields]
        )
        for metric in table.values:
            for levels in matrix.arms():
                arm = "/".join(levels)
                start = [metric, arm, *levels, *table.estimate(metric, arm)]
                writer.writerow([*start, *[""] * len(Difference._fields)])
                for other in matrix.compared_with(levels):
                    writer.writerow([*start, *table.difference(metric, arm, other)])


def summary(table: Table) -> dict[str, float]:
    """`metric/arm` -> mean over subjects, of what was measured."""
    return {
        f"{metric}/{arm}": table.estimate(metric, arm).value
        for metric, by_arm in table.values.items()
        for arm in by_arm
    }


def markdown(matrix: Matrix, table: Table) -> str:
    """Claims; all arms with all metrics; a table for each metric, the first factor down and the
    others across; differences."""
    said = [f"{table.finished} of {table.wanted} cells. {_LEAD}", ""]
    claims = claim_rows(matrix, table)
    if claims:
        said += ["### Claims", "", *lines(CLAIM_HEAD, claims), ""]
    said += ["### Arms", "", *lines(["arm", *table.values], _arms(table)), ""]
    for metric in table.values:
        said += [f"### {metric}", "", *_grid(matrix, table, metric), ""]
    for metric in table.values:
        differences = _differences(matrix, table, metric)
        if differences:
            said += [f"### Differences in {metric}", "", *lines(_HEAD, differences), ""]
    return "\n".join(said)


def _arms(table: Table) -> list[list[str]]:
    found = [(arm, [table.estimate(metric, arm) for metric in table.values]) for arm in table.arms]
    return [[arm, *map(cell, estimates)] for arm, estimates in found if any(e.n for e in estimates)]


def _grid(matrix: Matrix, table: Table, metric: str) -> list[str]:
    """Lines of one metric's table, without the rows and columns in which nothing was measured."""
    measured = {arm for arm in table.arms if table.estimate(metric, arm).n}
    arms = [levels for levels in matrix.arms() if "/".join(levels) in measured]
    columns = list(dict.fromkeys("/".join(levels[1:]) for levels in arms))
    body = [
        [row, *(cell(table.estimate(metric, "/".join(filter(None, (row, c))))) for c in columns)]
        for row in dict.fromkeys(levels[0] for levels in arms)
    ]
    return lines(["", *(name or "value" for name in columns)], body)


def claim_rows(matrix: Matrix, table: Table) -> list[list[str]]:
    """The cells below `CLAIM_HEAD`, a row for each claim."""
    return [
        [claim.text, claim.metric, spread(d), str(d.n), _p(p), verdict if d.n else "not measured"]
        for claim, d, p, verdict in decided(table, matrix.claims, matrix.asked)
    ]


def _differences(matrix: Matrix, table: Table, metric: str) -> list[list[str]]:
    """Rows of comparisons; none of how long stages took, which the cache decides."""
    if metric.startswith("seconds/"):
        return []
    return [
        ["/".join(levels), d.against, spread(d), str(d.n), _p(d.p)]
        for levels in matrix.arms()
        for other in matrix.compared_with(levels)
        if (d := table.difference(metric, "/".join(levels), other)).n
    ]


def page(matrix: Matrix, table: Table) -> Page:
    """Claims, a plot for each metric, the differences, and pictures of each arm."""
    sections = []
    claims = claim_rows(matrix, table)
    if claims:
        lead = "Differences are paired by subject; p is Wilcoxon's, with Holm's correction for all."
        sections.append(Section("Claims", _html(CLAIM_HEAD, claims), lead))
    comparisons = [
        plots.Comparison(
            metric,
            "mean over subjects",
            [
                plots.Measured(arm, *estimate)
                for arm in table.arms
                if (estimate := table.estimate(metric, arm)).n
            ],
        )
        for metric in table.values
    ]
    longest = max((len(row.label) for c in comparisons for row in c.rows), default=0)
    plot = Markup('<div style="--label: {}px">{}</div>').format(
        7 * longest, plots.whiskers(comparisons)
    )
    sections.append(Section("Measurements", plot, _LEAD))
    for metric in table.values:
        rows = _differences(matrix, table, metric)
        if rows:
            sections.append(Section(f"Differences in {metric}", _html(_HEAD, rows)))
    sections.append(Section("Pictures", _pictures(table), "First images of the first subject."))
    return Page("Matrix", [f"{table.finished} of {table.wanted} cells"], sections)


def _pictures(table: Table) -> Markup:
    rows = Markup("")
    for arm in table.arms:
        folders = table.runs.get(arm, [])
        files = sorted((folders[0] / "samples" / "tuned").glob("*.png")) if folders else []
        images = Markup("").join(_image(file) for file in files[:_PICTURES])
        rows += _PICTURE_ROW.format(arm, images)
    return Markup("<table>{}</table>").format(rows)


def _image(file: Path) -> Markup:
    with Image.open(file) as opened:
        pixels = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1) / 255
    return Markup('<img src="{}" alt="" style="display: inline; width: 96px; margin: 2px">').format(
        data_uri(pixels)
    )


def _html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    def line(tag: str, cells: Sequence[str]) -> str:
        # A number and its interval stay in one line; the table scrolls where the window is narrow.
        styles = (' style="white-space: nowrap"' if "[" in cell else "" for cell in cells)
        filled = (
            f"<{tag}{style}>{escape(cell)}</{tag}>"
            for cell, style in zip(cells, styles, strict=True)
        )
        return f"<tr>{''.join(filled)}</tr>"

    table = f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"
    return Markup(f'<div style="overflow-x: auto">{table}</div>')


def cell(estimate: Estimate) -> str:
    """`0.512 [0.471, 0.553] (8)`, or a dash."""
    if math.isnan(estimate.value):
        return "–"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] ({estimate.n})"


def spread(difference: Difference) -> str:
    """The same of a difference, with its sign."""
    if math.isnan(difference.mean):
        return "–"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _p(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def beside_earlier(
    head: Sequence[str], measured: Iterable[tuple[Sequence[str], str, float]]
) -> str:
    """How many earlier numbers, each with its digits, come out again, and a table of the others:
    what they are of, the earlier number, and what it is now."""
    body, same = [], 0
    for of, earlier, value in measured:
        now = f"{value:.{len(earlier.partition('.')[2])}f}"
        if float(now) == float(earlier):
            same += 1
        else:
            body.append([*of, earlier, now])
    count = f"{same} of {same + len(body)} come out in every digit that was given"
    if not body:
        return f"{count}."
    others = "\n".join(lines([*head, "earlier", "again"], body))
    return f"{count}; the others:\n\n{others}"
