"""The answer as one self-contained page, and the same as `verify.json`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from markupsafe import Markup

from shortcut_lightning.bench.matrix import Cell
from shortcut_lightning.bench.results import Difference
from shortcut_lightning.data.copies import SHEET
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.folders import list_images
from shortcut_lightning.files.images import center_crop, load_image, resize_shorter_side
from shortcut_lightning.report.axis import Axis
from shortcut_lightning.report.page import Page, Section, fill, render
from shortcut_lightning.report.pictures import data_uri
from shortcut_lightning.report.sections import cautions
from shortcut_lightning.report.summary import installed_versions
from shortcut_lightning.verify import words
from shortcut_lightning.verify.effects import Finding, Measured
from shortcut_lightning.verify.photographs import INSTANCE, NOISE, PROTECTED
from shortcut_lightning.verify.recipe import Recipe
from shortcut_lightning.verify.routes import COLUMNS, Matrix, Route

_PICTURES = 2  # of each arm: the first of the first prompts
_PHOTOGRAPHS = 4
_THUMBNAIL = 256

Damage = Mapping[str, Mapping[str, float | None]]  # noise, protected -> measure -> mean


@dataclass(frozen=True)
class Answer:
    """All that the page shows.

    Attributes:
        recipe: What was asked.
        matrix: What was planned.
        measured: What cells say of single pictures.
        findings: The worst for the protection first.
        judges: Networks behind the measures.
        models: Models that learnt.
        runs: arm -> folder of its first run.
        damage: How far copies are from the photographs.
        finished: Cells that are finished, of all.
        seconds: Of all finished cells.
        command: What to type to go on.
        unfinished: Cells that are not, by name.
    """

    recipe: Recipe
    matrix: Matrix
    measured: Measured
    findings: Sequence[Finding]
    judges: Sequence[str]
    models: Sequence[str]
    runs: Mapping[str, Path]
    damage: Damage
    finished: tuple[int, int]
    seconds: float
    command: str = ""
    unfinished: Sequence[str] = ()

    def sentences(self) -> list[str]:
        """The verdict."""
        return words.verdict(self.findings, self.judges)

    def limits(self) -> list[str]:
        """What a reader must know."""
        return words.limits(self.recipe, self.matrix, self.measured, self.models)


class Facts(NamedTuple):
    """What reports say beside numbers."""

    judges: list[str]  # networks behind the measures
    models: list[str]  # that were trained, or asked
    runs: dict[str, Path]  # arm -> folder of its first run


def facts(reports: Sequence[tuple[Cell, Path]], measures: Sequence[str]) -> Facts:
    """Reads the reports of finished cells."""
    found = Facts([], [], {})
    for cell, path in reports:
        report = json.loads(path.read_text("utf-8"))
        found.runs.setdefault(cell.arm, path.parent)
        model = str(report.get("model", "")).partition(" ")[0]
        judges = [report["extractors"].get(measure, "") for measure in measures]
        for known, names in ((found.models, [model]), (found.judges, judges)):
            known += [name for name in dict.fromkeys(names) if name and name not in known]
    return found


def write(answer: Answer, root: Path) -> Path:
    """Writes `verify.json` and `verify.html`; returns the page's path."""
    text = json.dumps(as_json(answer), indent=2, ensure_ascii=False, allow_nan=False)
    for name, content in (("verify.json", f"{text}\n"), ("verify.html", page(answer, root))):
        with atomic(root / name) as half:
            half.write_text(content, encoding="utf-8")
    return root / "verify.html"


def page(answer: Answer, root: Path) -> str:
    """The page as HTML."""
    recipe, (done, of) = answer.recipe, answer.finished
    facts = [
        f"{recipe.protection} at {recipe.epsilon:g}/255",
        f"made against {recipe.model}",
        f"photographs: {recipe.source}",
        f"{done} of {of} runs",
    ]
    verdict = Markup("").join(Markup("<p>{}</p>").format(each) for each in answer.sentences())
    sections = [
        Section("Verdict", verdict),
        Section("What was learnt, worst case first", _routes(answer), _LEAD),
        Section("What the models draw", _pictures(answer), _DRAWN),
        Section("What it costs the photographs", _photographs(answer, root), _DAMAGE),
        Section("What this says nothing about", cautions(answer.limits()).html),
        Section("How it was done", _how(answer, root)),
    ]
    return render(Page(words.title(answer.findings), facts, sections))


_LEAD = (
    "Identity: how much the pictures look like the subject; 1 is the same. Quality: how free of "
    "noise and blur they are. Dots say how much lower they are after protected photographs than "
    "after clean ones and after clean ones with noise of the same size, lines are 95 % intervals. "
    "A line that touches zero shows nothing."
)
_DRAWN = "After each way of learning: from clean photographs, with noise, and protected."
_DAMAGE = "The photographs, with noise of the same size, protected, and what was changed, 8 times."


def _routes(answer: Answer) -> Markup:
    every = [d for f in answer.findings for e in f.effects for d in (e.below_clean, e.below_noise)]
    axis = Axis.around([0.0, *(x for d in every for x in (d.low, d.mean, d.high))])
    rows = [
        {
            "name": finding.route.name,
            "grade": finding.grade,
            "said": words.graded(finding),
            "effects": [
                {
                    "name": words.name(effect.measure),
                    "means": _means(answer.measured, effect.measure, finding.route),
                    "share": words.shares(effect),
                    "rows": [
                        _row("below clean", "tuned", effect.below_clean),
                        _row("below noise", "base", effect.below_noise),
                    ],
                }
                for effect in finding.effects
            ],
        }
        for finding in answer.findings
    ]
    return fill("verify_routes.html", rows=rows, axis=axis)


def _row(label: str, kind: str, d: Difference) -> dict[str, Any]:
    said = {"value": words.number(d.mean), "range": words.spread(d)}
    return {"label": label, "kind": kind, "low": d.low, "mean": d.mean, "high": d.high, **said}


def _means(measured: Measured, measure: str, route: Route) -> list[tuple[str, str]]:
    arms = {column: f"{column}/{route.name}" for column in COLUMNS}
    return [(column, words.number(measured.mean(measure, arm))) for column, arm in arms.items()]


def _pictures(answer: Answer) -> Markup:
    each = int(answer.recipe.data["evaluation"]["images_per_prompt"])
    worst_first = [finding.route for finding in answer.findings]
    rest = [route for route in answer.matrix.routes if route not in worst_first]
    rows = []
    for route in [*worst_first, *rest]:
        groups = [_drawn(answer.runs.get(f"{column}/{route.name}"), each) for column in COLUMNS]
        if any(groups):
            rows.append((route.name, list(zip(COLUMNS, groups, strict=True))))
    return fill("verify_pictures.html", rows=rows)


def _drawn(run: Path | None, each: int) -> list[str]:
    files = sorted((run / "samples" / "tuned").glob("*.png")) if run else []
    return [data_uri(load_image(file)) for file in files[::each][:_PICTURES]]


def _photographs(answer: Answer, root: Path) -> Markup:
    folder = root / "photographs"
    paths = [list_images(folder / name, "instance_data_dir") for name in (INSTANCE, PROTECTED)]
    by_stem = {path.stem: path for path in paths[1]}
    rows = []
    for original in paths[0][:_PHOTOGRAPHS]:
        copy = by_stem[original.stem]
        given, noisy, protected = (
            _thumbnail(path) for path in (original, folder / NOISE / copy.name, copy)
        )
        change = ((protected - given) * 8 + 0.5).clamp(0, 1)
        images = {"given": given, "noise": noisy, "protected": protected, "change x 8": change}
        rows.append([(label, data_uri(image)) for label, image in images.items()])
    heads = list(answer.damage.get(PROTECTED, {}))
    table = [
        (name, [_plain(answer.damage[name].get(head)) for head in heads]) for name in answer.damage
    ]
    return fill("verify_photographs.html", rows=rows, heads=heads, table=table)


def _thumbnail(path: Path) -> torch.Tensor:
    image = load_image(path)
    side = min(_THUMBNAIL, *image.shape[-2:])
    return center_crop(resize_shorter_side(image, side), side)


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _how(answer: Answer, root: Path) -> Markup:
    recipe, matrix = answer.recipe, answer.matrix
    steps = f"{recipe.steps} steps" if recipe.steps > 0 else "as long as the recipe says"
    rows = [
        ("trainings", f"{matrix.trainings}, {steps} each, {recipe.pictures} pictures of each"),
        ("models", ", ".join(answer.models)),
        ("judges", ", ".join(answer.judges) or "–"),
        ("time", f"{answer.seconds / 60:.0f} minutes of all runs together"),
        ("not finished", ", ".join(answer.unfinished)),
        ("copies", str(root / "photographs" / PROTECTED)),
        ("contact sheet", str(root / "photographs" / PROTECTED / SHEET)),
        ("again, or on", answer.command),
        *((name, version) for name, version in installed_versions().items()),
    ]
    return fill("verify_how.html", rows=[row for row in rows if row[1]])


def as_json(answer: Answer) -> dict[str, Any]:
    """Plain types; a number that is not finite is null."""
    recipe = answer.recipe
    return {
        "verdict": answer.sentences(),
        "worst": answer.findings[0].route.name if answer.findings else None,
        "findings": [_finding(answer.measured, each) for each in answer.findings],
        "protection": {"attack": recipe.attack, "model": recipe.model},
        "photographs": {"source": recipe.source, "damage": answer.damage},
        "judges": list(answer.judges),
        "models": list(answer.models),
        "limits": answer.limits(),
        "runs": {"finished": answer.finished[0], "planned": answer.finished[1]},
        "trainings_of_each": answer.matrix.seeds,
        "intervals_over": "pictures, paired by prompt and noise",
        "unfinished": list(answer.unfinished),
        "seconds": round(answer.seconds, 1),
        "versions": installed_versions(),
    }


def _finding(measured: Measured, finding: Finding) -> dict[str, Any]:
    return {
        "route": finding.route.name,
        "grade": finding.grade,
        "measures": {
            effect.measure: {
                "means": {
                    column: _finite(measured.mean(effect.measure, f"{column}/{finding.route.name}"))
                    for column in COLUMNS
                },
                "below_clean": _difference(effect.below_clean, effect.p_clean),
                "below_noise": _difference(effect.below_noise, effect.p_noise),
                "share": _finite(effect.share),
                "grade": effect.grade,
            }
            for effect in finding.effects
        },
    }


def _difference(d: Difference, p: float) -> dict[str, float | None]:
    numbers = {"mean": d.mean, "low": d.low, "high": d.high, "pictures": d.n, "p_holm": p}
    return {key: _finite(value) for key, value in numbers.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
