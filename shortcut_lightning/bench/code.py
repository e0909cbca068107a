"""Which code decided a number: a hash that comments, docstrings and layout do not change."""

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# What only asks, writes down and shows: no number of a cell depends on it.
_SHOWS = ("bench", "cli", "report", "results")
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def deciding_code(package: Path = PACKAGE) -> str:
    """Hash of the package's modules on which the numbers of a cell can depend."""
    files = sorted(package.rglob("*.py"))
    shows = {package / room for room in _SHOWS}
    return hash_of(package, tuple(file for file in files if not shows & set(file.parents)))


@lru_cache
def hash_of(root: Path, files: tuple[Path, ...]) -> str:
    """Sixteen hexadecimal digits for what these modules say, and where below `root` they lie."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(said(file.read_text("utf-8")).encode())
    return digest.hexdigest()[:16]


def said(source: str) -> str:
    """A module's syntax tree without positions and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
