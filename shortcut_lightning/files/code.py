"""Which code and which built-in weights decide a number, by hashes: what a result was made with is
noted beside it, or is a part of the key under which it is kept. Comments, docstrings and layout
change no hash of code. Everything is read once in a process."""

import ast
import gc
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from shortcut_lightning.pocket import BUILT_IN

PACKAGE = Path(__file__).parents[1]
# What only asks, writes down and shows: no number of a cell depends on it.
_SHOWS = ("bench", "cli", "report", "results", "verify")
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class Imported(NamedTuple):
    """A name that a module takes from another, which is empty where it takes all of it."""

    module: str
    name: str
    known_as: str


class Read(NamedTuple):
    """What a module's file says, and what it imports."""

    said: str
    imports: tuple[Imported, ...]


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
        digest.update(_read(file).said.encode())
    return digest.hexdigest()[:16]


def code_behind(kinds: Iterable[type]) -> str:
    """Hash of the package's modules that decide what objects of these classes do: those in which
    the classes and their bases are written, and what these import, however deep.

    A class from elsewhere counts by what its module takes from the package, and needs no file.
    """
    modules = {base.__module__ for kind in kinds for base in kind.__mro__}
    roots = {file for module in modules for file in _of_package(module)}
    return hash_of(PACKAGE, tuple(sorted(reached(roots))))


def kinds_in(value: Any) -> Iterator[type]:
    """The class of an object and those of its arguments that are objects, as far as it keeps them
    as attributes of the same names (`cache.describe`)."""
    match value:
        case None | bool() | int() | float() | str() | Path() | Tensor():
            return
        case list() | tuple():
            for item in value:
                yield from kinds_in(item)
        case Mapping():
            yield from kinds_in(list(value.values()))
        case _:
            yield type(value)
            for name in inspect.signature(type(value)).parameters:
                yield from kinds_in(getattr(value, name, None))


def reached(roots: Iterable[Path], package: Path = PACKAGE) -> set[Path]:
    """These modules of the package and all that they import from it, however deep."""
    found: set[Path] = set()
    waiting = set(roots)
    while waiting:
        file = waiting.pop()
        found.add(file)
        waiting |= _imports(file, package) - found
    return found


@lru_cache
def deciding_weights(package: Path = PACKAGE) -> str:
    """Hash of the built-in models, and of the networks that measure and restore: every file of
    their folders but what only tells of them."""
    folders = [package / folder.relative_to(PACKAGE) for folder in BUILT_IN.values()]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return _hash_of_bytes(package, sorted(file for file in files if file.suffix != ".md"))


@lru_cache
def tensors_alone(package: Path = PACKAGE) -> str:
    """What `deciding_weights` was in results of before it knew of more than tensors."""
    return _hash_of_bytes(package, sorted(package.rglob("*.safetensors")))


def said(source: str) -> str:
    """A module's syntax tree without positions and docstrings."""
    return _undocumented(source).said


def _hash_of_bytes(root: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


@cache
def _read(file: Path) -> Read:
    with _uncollected():
        return _undocumented(file.read_text("utf-8"))


@contextmanager
def _uncollected() -> Iterator[None]:
    """A tree is many objects, none of them garbage: looking for some would take most of the time
    where as much is loaded as in a run."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _undocumented(source: str) -> Read:
    tree, imports = ast.parse(source), list[Imported]()
    for node in _statements(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports += [Imported(node.module, a.name, a.asname or a.name) for a in node.names]
        elif isinstance(node, ast.Import):
            imports += [Imported(alias.name, "", "") for alias in node.names]
    return Read(ast.dump(tree), tuple(imports))


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The tree and its statements, not their expressions, which are most of its nodes."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in _BLOCKS:
            waiting += getattr(node, block, ())


@cache
def _of_package(module: str) -> frozenset[Path]:
    """The package's files on which a loaded module rests at once: its own, or, of a module from
    elsewhere, those that it imports."""
    if module.partition(".")[0] == PACKAGE.name:
        own = _file(PACKAGE, module)
        return frozenset([own] if own else [])
    try:
        file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
        if file.suffix == ".py" and PACKAGE.name.encode() in file.read_bytes():
            return _imports(file, PACKAGE)
    except (OSError, SyntaxError, ValueError):  # typed in, gone, or for another interpreter
        pass
    return frozenset()


@cache
def _imports(file: Path, package: Path) -> frozenset[Path]:
    sources = (_source(each.module, each.name, package) for each in _read(file).imports)
    return frozenset(source for source in sources if source)


@cache
def _source(module: str, name: str, package: Path) -> Path | None:
    """Where a name of a module is written: a room's `__init__` passes on what others wrote."""
    if name and (inner := _file(package, f"{module}.{name}")):
        return inner
    file = _file(package, module)
    if name and file and file.name == "__init__.py":
        for each in _read(file).imports:
            if each.known_as == name and each.module != module:
                return _source(each.module, each.name, package)
    return file


@cache
def _file(package: Path, module: str) -> Path | None:
    """The file of a module of the package; None for one from elsewhere."""
    if module.partition(".")[0] != package.name:
        return None
    path = package.parent.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)
