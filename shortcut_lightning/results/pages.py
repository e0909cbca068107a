"""Fills the templates of pages from rows, and knows when a page on disk says something else.

A room's page is `README.md`; its template is `results/page.md.jinja` in that room, and the rows of
each matrix `NAME.yaml` there lie in `results/NAME/`. Pages that say other things too have a part
between two marks filled in, from the template of the same path below `insets/`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shortcut_lightning.audit.tables import AuditTables
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.results.erasing import SCRIPT, ErasingTables, factors_of
from shortcut_lightning.results.families import held_more
from shortcut_lightning.results.suite import Suite
from shortcut_lightning.screening.card import Card
from shortcut_lightning.screening.remover import Removals

TEMPLATE = Path("results") / "page.md.jinja"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def rooms(root: Path) -> list[Path]:
    """The folders below `root` that have a page to be rendered."""
    return sorted(template.parents[1] for template in root.rglob(str(TEMPLATE)))


def rendered(room: Path) -> Mapping[Path, str]:
    """The page of a room and its figures: path -> text.

    Raises:
        ValueError: rows that cannot be read, or that the matrix does not know.
    """
    files: dict[Path, str] = {}

    def figure(of: Suite, name: str, metric: str, patterns: Sequence[str]) -> str:
        path = room / "results" / f"{name}.svg"
        files[path] = of.figure(metric, patterns)
        return f"![{name}]({path.relative_to(room).as_posix()})"

    page = _filled(room / TEMPLATE, questions(room) | {"figure": figure})
    return {room / "README.md": page, **files}


def insets(root: Path) -> Mapping[Path, str]:
    """Pages beside and below the parent of `root` with their marked part filled in: path -> text.

    Raises:
        ValueError: rows that cannot be read, or a page without both marks.
    """
    files = {}
    for template in sorted((root / "insets").rglob("*.md.jinja")):
        page = root.parent / template.relative_to(root / "insets").with_suffix("")
        before, begin, rest = page.read_text("utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"{page} has no part between '{BEGIN}' and '{END}' for {template}.")
        files[page] = f"{before}{begin}\n{_filled(template, questions(root)).strip()}\n{end}{after}"
    return files


def questions(room: Path) -> dict[str, Callable[..., object]]:
    """What a template may ask of rows; names are paths of recipes below `room`, without `.yaml`."""

    def kept(name: str) -> Path:
        return (room / name).parent / "results" / Path(name).name

    def suite(name: str) -> Suite:
        return Suite(room / f"{name}.yaml", kept(name))

    def audits(name: str) -> AuditTables:
        return AuditTables(kept(name))

    def erasing(name: str) -> ErasingTables | None:
        recipe = room / f"{name}.yaml"
        if not (kept(name) / "cells.csv").is_file():
            return None
        return ErasingTables(kept(name), factors_of(recipe) if recipe.is_file() else SCRIPT)

    def figures(path: str) -> Any:
        return json.loads((room / path).read_text("utf-8"))

    def card(name: str = "screening") -> Card:
        return Card(kept(name).parent)

    def removals(name: str = "screening") -> Removals:
        return Removals(kept(name).parent)

    return {
        "suite": suite,
        "audits": audits,
        "erasing": erasing,
        "held_more": held_more,
        "figures": figures,
        "card": card,
        "removals": removals,
    }


def _filled(template: Path, questions: Mapping[str, Callable[..., object]]) -> str:
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(questions)


def stale(files: Mapping[Path, str]) -> list[Path]:
    """Which of them say something else on disk, or are not there."""
    return [
        path
        for path, text in files.items()
        if not path.is_file() or path.read_text("utf-8") != text
    ]


def write(files: Mapping[Path, str]) -> list[Path]:
    """Writes what differs; returns their paths."""
    changed = stale(files)
    for path in changed:
        with atomic(path) as half:
            half.write_text(files[path], encoding="utf-8")
    return changed
