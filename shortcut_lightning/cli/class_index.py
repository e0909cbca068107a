"""Which of our classes are defined where, read from the source without importing it.

Short class names (`--data.attack PGD`) resolve only once a class is imported, and importing every
room costs seconds. So only the modules that define a class named on the command line or in a
config file are imported; messages about the others come from this index.
"""

import functools
import importlib
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from shortcut_lightning.cli.config_files import reached

PACKAGE = Path(__file__).parents[1]
_CLASS = re.compile(r"^class (\w+)(?:\[[^\]]*\])?(?:\(([^)]*)\))?:", re.MULTILINE)
_ABSTRACT = re.compile(r"^    @abstractmethod\n(?:    @\w+\n)*    def (\w+)", re.MULTILINE)
_METHOD = re.compile(r"^    def (\w+)", re.MULTILINE)


class ClassEntry(NamedTuple):
    """One class statement of the package."""

    name: str
    module: str
    bases: tuple[str, ...]  # without their modules
    abstract: frozenset[str] = frozenset()  # methods that it leaves to others
    methods: frozenset[str] = frozenset()  # those it has


@functools.cache
def class_index(package: Path = PACKAGE) -> tuple[ClassEntry, ...]:
    """Every public class of the package's modules, except the command line's own."""
    entries: list[ClassEntry] = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        if parts[1] == "cli":
            continue
        module = ".".join(part for part in parts if part != "__init__")
        hidden: dict[str, ClassEntry] = {}  # private ones, which hand on what they have
        for entry in entries_of(path.read_text(encoding="utf-8"), module):
            for base in filter(None, map(hidden.get, entry.bases)):
                theirs = [*base.bases, *entry.bases]
                bases = tuple(name for name in theirs if name not in (base.name, "ABC"))
                entry = entry._replace(bases=bases, methods=entry.methods | base.methods)
            if entry.name.startswith("_"):
                hidden[entry.name] = entry
            else:
                entries.append(entry)
    return tuple(entries)


def entries_of(text: str, module: str) -> Iterator[ClassEntry]:
    """The class statements of one module, private ones too."""
    for match in _CLASS.finditer(text):
        bases = re.sub(r"\[.*?\]", "", match[2] or "").split(",")
        names = (base.strip().rsplit(".", 1)[-1] for base in bases)
        body = re.split(r"^\S", text[match.end() :], maxsplit=1, flags=re.MULTILINE)[0]
        abstract, methods = (frozenset(found.findall(body)) for found in (_ABSTRACT, _METHOD))
        yield ClassEntry(match[1], module, tuple(filter(None, names)), abstract, methods)


def descendants(base: str, entries: Sequence[ClassEntry]) -> list[str]:
    """Names of the classes that inherit, directly or not, from the class named `base`."""
    found = {base}
    while new := {e.name for e in entries if e.name not in found and found & set(e.bases)}:
        found |= new
    return sorted(found - {base})


def concrete(base: str, entries: Sequence[ClassEntry]) -> list[str]:
    """The same without what only others build on: a method is left to them, or ABC says so."""
    by_name = {entry.name: entry for entry in entries}

    def left(name: str) -> frozenset[str]:
        entry = by_name.get(name)
        if entry is None:
            return frozenset()
        inherited = frozenset[str]().union(*map(left, entry.bases))
        return inherited - entry.methods | entry.abstract

    return [
        name
        for name in descendants(base, entries)
        if not left(name) and "ABC" not in by_name[name].bases
    ]


def why_not_imported(given: str) -> str:
    """What went wrong inside the module of a class path, with the place; "" where there is no such
    module, or nothing went wrong."""
    module = given.rpartition(".")[0]
    try:
        if module and re.fullmatch(r"\w+(\.\w+)*", module):
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return ""
        return _told(module, error)
    except Exception as error:  # a user's file may fail in any way
        return _told(module, error)
    return ""


def _told(module: str, error: Exception) -> str:
    frames = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    if isinstance(error, SyntaxError):
        frames.append((str(error.filename), error.lineno))
    place = " ({}, line {})".format(*frames[-1]) if frames else ""
    said = " ".join(str(error).split())
    return f"{module} cannot be imported{place}: {type(error).__name__}: {said}"


def import_named(args: Sequence[str], entries: Sequence[ClassEntry]) -> None:
    """Imports the modules that define a class whose name occurs in `args` or in the YAML files
    they lead to."""
    words = set(re.findall(r"\w+", "\n".join([*args, *reached(args).values()])))
    for module in sorted({entry.module for entry in entries if entry.name in words}):
        importlib.import_module(module)
