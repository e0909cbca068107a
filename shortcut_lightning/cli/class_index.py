"""Which of our classes are defined where, read from the source without importing it.

Short class names (`--data.attack PGD`) resolve only once a class is imported, and importing every
room costs seconds. So only the modules that define a class named on the command line or in a
config file are imported; messages about the others come from this index.
"""

import functools
import importlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]
_CLASS = re.compile(r"^class (\w+)(?:\[[^\]]*\])?(?:\(([^)]*)\))?:", re.MULTILINE)


class ClassEntry(NamedTuple):
    """One class statement of the package."""

    name: str
    module: str
    bases: tuple[str, ...]  # without their modules


@functools.cache
def class_index(package: Path = PACKAGE) -> tuple[ClassEntry, ...]:
    """Every public class of the package's modules, except the command line's own."""
    entries = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        if parts[1] == "cli":
            continue
        module = ".".join(part for part in parts if part != "__init__")
        for name, bases in _CLASS.findall(path.read_text(encoding="utf-8")):
            names = (base.split("[")[0].strip().rsplit(".", 1)[-1] for base in bases.split(","))
            if not name.startswith("_"):
                entries.append(ClassEntry(name, module, tuple(filter(None, names))))
    return tuple(entries)


def descendants(base: str, entries: Sequence[ClassEntry]) -> list[str]:
    """Names of the classes that inherit, directly or not, from the class named `base`."""
    found = {base}
    while new := {e.name for e in entries if e.name not in found and found & set(e.bases)}:
        found |= new
    return sorted(found - {base})


def import_named(args: Iterable[str], entries: Sequence[ClassEntry]) -> None:
    """Imports the modules that define a class whose name occurs in `args` or in the YAML files
    they lead to."""
    words = set(re.findall(r"\w+", "\n".join(_texts(args))))
    for module in sorted({entry.module for entry in entries if entry.name in words}):
        importlib.import_module(module)


def _texts(args: Iterable[str]) -> list[str]:
    """The arguments and the contents of every YAML file that they, or those files, name."""
    texts, seen = list(args), set[Path]()
    # An argument, or what follows its first "=", may be a path with spaces; so may a quoted name.
    queue = [(text, Path()) for text in texts]
    queue += [(f"'{part}'", Path()) for text in texts for part in (text, text.partition("=")[2])]
    while queue:
        text, folder = queue.pop()
        names = re.findall(r"[^\s=:'\"\[\],]+\.ya?ml", text)
        for name in [*names, *re.findall(r"""['"]([^'"\n]+\.ya?ml)['"]""", text)]:
            # A path inside a YAML file is relative to that file.
            path = folder / name
            if path.is_file() and path.resolve() not in seen:
                seen.add(path.resolve())
                texts.append(path.read_text(encoding="utf-8"))
                queue.append((texts[-1], path.parent))
    return texts
