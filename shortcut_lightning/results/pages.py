"""Fills the templates of pages from rows, and knows when a page on disk says something else.

A room's page is `README.md`; its template is `results/page.md.jinja` in that room, and the rows of
each matrix `NAME.yaml` there lie in `results/NAME/`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shortcut_lightning.audit.tables import AuditTables
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.results.suite import Suite
from shortcut_lightning.screening.card import Card

TEMPLATE = Path("results") / "page.md.jinja"


def rooms(root: Path) -> list[Path]:
    """The folders below `root` that have a page to be rendered."""
    return sorted(template.parents[1] for template in root.rglob(str(TEMPLATE)))


def rendered(room: Path) -> Mapping[Path, str]:
    """The page of a room and its figures: path -> text.

    Raises:
        ValueError: rows that cannot be read, or that the matrix does not know.
    """
    files: dict[Path, str] = {}

    def suite(name: str) -> Suite:
        return Suite(room / f"{name}.yaml", room / "results" / name)

    def audits(name: str) -> AuditTables:
        return AuditTables(room / "results" / name)

    def card() -> Card:
        return Card(room / "results")

    def figure(of: Suite, name: str, metric: str, patterns: Sequence[str]) -> str:
        path = room / "results" / f"{name}.svg"
        files[path] = of.figure(metric, patterns)
        return f"![{name}]({path.relative_to(room).as_posix()})"

    environment = Environment(
        loader=FileSystemLoader(room / "results"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template(TEMPLATE.name)
    page = template.render(suite=suite, audits=audits, card=card, figure=figure)
    return {room / "README.md": page, **files}


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
