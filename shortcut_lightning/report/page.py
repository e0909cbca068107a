"""The report as one self-contained page: every image, style and plot is inside the file.

A page is a heading and a list of sections; whoever has something to show adds a `Section`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


@dataclass(frozen=True)
class Section:
    """A titled part of the page. `html` is inserted as it is, `lead` is plain text."""

    title: str
    html: Markup
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """What the template shows."""

    title: str
    facts: list[str] = field(default_factory=list)  # short phrases under the title
    sections: Sequence[Section] = ()


def render(page: Page) -> str:
    """The page as HTML."""
    return template("page.html").render(page=page)


@cache
def template(name: str) -> Template:
    """One of the templates beside this file; values are escaped unless they are `Markup`."""
    environment = Environment(
        loader=PackageLoader("shortcut_lightning.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def fill(name: str, **values: object) -> Markup:
    """A template with its values, as HTML to put into a section."""
    return Markup(template(name).render(values))
