"""The result as CSV, Markdown and one HTML page."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup, escape
from PIL import Image

from shortcut_lightning.bench.matrix import Matrix
from shortcut_lightning.bench.results import Difference, Table, decided
from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.report import plots
from shortcut_lightning.report.page import Page, Section, render
from shortcut_lightning.report.pictures import data_uri

_PICTURES = 4  # of each arm


def write(matrix: Matrix, table: Table, folder: Path) -> list[Path]:
    """Writes `table.csv`, `table.md` and `table.html`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"table.{kind}" for kind in ("csv", "md", "html")]
    _csv(matrix, table, paths[0])
    paths[1].write_text(markdown(matrix, table), encoding="utf-8")
    paths[2].write_text(render(page(matrix, table)), encoding="utf-8")
    return paths


def _csv(matrix: Matrix, table: Table, path: Path) -> None:
    """One row for each metric, arm and comparison; a first one without any."""
    with path.open("w", newline="", encoding="utf-8") as file:
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


def markdown(matrix: Matrix, table: Table) -> str:
    """A table for each metric: the first factor down, the others across; then differences and
    claims."""
    rows = list(next(iter(matrix.factors.values())))
    columns = list(dict.fromkeys("/".join(levels[1:]) for levels in matrix.arms()))
    lines = [f"{table.finished} of {table.wanted} cells. Mean over subjects [95 % bootstrap].", ""]
    for metric in table.values:
        lines += [f"### {metric}", "", _row(["", *(name or "value" for name in columns)])]
        lines.append(_row(["---"] * (len(columns) + 1)))
        for row in rows:
            arms = ["/".join(filter(None, (row, column))) for column in columns]
            cells = [cell(table.estimate(metric, arm)) for arm in arms]
            lines.append(_row([row, *cells]))
        lines += ["", *_differences(matrix, table, metric)]
    claims = decided(table, matrix.claims)
    if claims:
        lines += ["### Claims", "", _row(["claim", "metric", "difference", "p", "verdict"])]
        lines.append(_row(["---"] * 5))
        lines += [
            _row([claim.text, claim.metric, spread(d), _p(d.p), verdict])
            for claim, d, verdict in claims
        ]
    return "\n".join([*lines, ""])


def _differences(matrix: Matrix, table: Table, metric: str) -> list[str]:
    found = [
        ("/".join(levels), table.difference(metric, "/".join(levels), other))
        for levels in matrix.arms()
        for other in matrix.compared_with(levels)
    ]
    if not found:
        return []
    head = [_row(["arm", "minus", "difference", "p", "subjects"]), _row(["---"] * 5)]
    body = [_row([arm, d.against, spread(d), _p(d.p), str(d.n)]) for arm, d in found if d.n]
    return [*head, *body, ""]


def page(matrix: Matrix, table: Table) -> Page:
    """Claims, a plot for each metric, the tables, and pictures of each arm."""
    sections = []
    claims = decided(table, matrix.claims)
    if claims:
        rows = [
            [claim.text, claim.metric, spread(d), _p(d.p), verdict] for claim, d, verdict in claims
        ]
        head = ["claim", "metric", "difference", "p (Wilcoxon)", "verdict"]
        sections.append(Section("Claims", _html(head, rows), "Paired by subject."))
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
    lead = "Dots are means over subjects, lines 95 % bootstrap intervals over subjects."
    sections.append(Section("Measurements", plots.whiskers(comparisons), lead))
    for metric in table.values:
        rows = [
            ["/".join(levels), d.against, spread(d), _p(d.p), str(d.n)]
            for levels in matrix.arms()
            for other in matrix.compared_with(levels)
            if (d := table.difference(metric, "/".join(levels), other)).n
        ]
        if rows:
            head = ["arm", "minus", "difference", "p (Wilcoxon)", "subjects"]
            sections.append(Section(f"Differences in {metric}", _html(head, rows)))
    sections.append(Section("Pictures", _pictures(table), "First images of the first subject."))
    return Page("Matrix", [f"{table.finished} of {table.wanted} cells"], sections)


def _pictures(table: Table) -> Markup:
    rows = Markup("")
    for arm in table.arms:
        folders = table.runs.get(arm, [])
        files = sorted((folders[0] / "samples" / "tuned").glob("*.png")) if folders else []
        images = Markup("").join(_image(file) for file in files[:_PICTURES])
        rows += Markup("<tr><th>{}</th><td>{}</td></tr>").format(arm, images)
    return Markup("<table>{}</table>").format(rows)


def _image(file: Path) -> Markup:
    with Image.open(file) as opened:
        pixels = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1) / 255
    return Markup('<img src="{}" alt="" style="width: 96px; margin: 2px">').format(data_uri(pixels))


def _html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return Markup(f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>")


def cell(estimate: Estimate) -> str:
    """`0.512 [0.471, 0.553]`, or a dash."""
    if math.isnan(estimate.value):
        return "–"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def spread(difference: Difference) -> str:
    """The same of a difference, with its sign."""
    if math.isnan(difference.mean):
        return "–"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _p(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
