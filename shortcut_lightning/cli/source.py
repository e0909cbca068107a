"""What classes are for and what they take, read from their source without importing it.

Help would otherwise wait for torch and lightning, and show what Python makes of a signature.
"""

import ast
import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from shortcut_lightning import ranges
from shortcut_lightning.cli.class_index import PACKAGE, ClassEntry, class_index, entries_of


class Argument(NamedTuple):
    """One argument of a constructor, or an option of a verb."""

    name: str
    kind: str  # in words, such as `int, at least 1`; "" where nothing is said
    default: str  # as it is written; "" for none
    about: str
    classes: tuple[str, ...] = ()  # names in its annotation, among which may be classes


class Described(NamedTuple):
    """A class, for a user."""

    name: str
    module: str
    about: (
        str  # the first paragraph of its docstring, behind its file's where it has one of its own
    )
    arguments: tuple[Argument, ...]


def line(text: str, limit: int) -> str:
    """The first sentence, cut to `limit` characters at the end of a word."""
    sentence = re.split(r"(?<=[^.][^.])\.\s|\.$", " ".join(text.split()), maxsplit=1)[0]
    if len(sentence) <= limit:
        return sentence
    return sentence[: limit - 4].rsplit(" ", 1)[0].rstrip(",;:") + " ..."


@functools.cache
def lightning() -> tuple[ClassEntry, ...]:
    """Lightning's classes, by the same reading."""
    folder = _lightnings_folder()
    return class_index(folder) if folder else ()


def _lightnings_folder() -> Path | None:
    spec = find_spec("lightning")
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) if folders else None


@functools.cache
def described(name: str) -> Described | None:
    """A class of this package or of Lightning by its name or path, or of anybody by its path; None
    for what is not found."""
    module, _, short = name.rpartition(".")
    for entries, root in ((class_index(), PACKAGE), (lightning(), _lightnings_folder())):
        for entry in entries:
            if entry.name == short and root and (not module or _same(module, entry.module)):
                return _described(entry, root)
    return _elsewhere(module, short) if module else None


def _elsewhere(module: str, name: str) -> Described | None:
    """A class of a user's module, which is looked for where Python would."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    if not spec or not spec.origin or not spec.origin.endswith(".py"):
        return None
    file = Path(spec.origin)
    root = file.parents[module.count(".") + (file.name == "__init__.py")] / module.split(".")[0]
    for entry in entries_of(file.read_text("utf-8"), module):
        if entry.name == name:
            return _described(entry, root)
    return None


def _same(path: str, module: str) -> bool:
    """Whether an import path may be of that module, whose classes its rooms offer too."""
    return module == path or module.startswith(f"{path}.")


def _described(entry: ClassEntry, root: Path) -> Described | None:
    node = _class_node(root, entry)
    if node is None:
        return None
    text = ast.get_docstring(node) or ""
    init = next((n for n in node.body if _is_function(n, "__init__")), None)
    bases = [found for base in entry.bases if (found := described(base))]
    inherited = {a.name: a for base in reversed(bases) for a in base.arguments}
    if isinstance(init, ast.FunctionDef):
        texts = {**_texts(ast.get_docstring(init) or ""), **_texts(text)}
        arguments = _of_function(init, texts)
        if init.args.kwarg:  # what it hands on, but for what it decides itself
            fixed = {k.arg for call in ast.walk(init) for k in _handed_on(call)}
            known = {argument.name for argument in arguments}
            arguments += [a for n, a in inherited.items() if n not in fixed | known]
    else:
        own = _of_fields(node, _texts(text)) if _has_fields(node, entry) else []
        known = {argument.name for argument in own}
        arguments = [a for n, a in inherited.items() if n not in known] + own
    told = [a if a.about else a._replace(about=_told(a, inherited)) for a in arguments]
    file = _tree(_file(root, entry))
    public = [n for n in file.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    above = _about(ast.get_docstring(file) or "") if public == [node] else ""
    about = " ".join(filter(None, (above, _about(text) or entry.name)))
    return Described(entry.name, entry.module, about, tuple(told))


def _told(argument: Argument, inherited: dict[str, Argument]) -> str:
    return inherited[argument.name].about if argument.name in inherited else ""


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def _file(root: Path, entry: ClassEntry) -> Path:
    place = root.parent.joinpath(*entry.module.split("."))
    return place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"


def _class_node(root: Path, entry: ClassEntry) -> ast.ClassDef | None:
    body = _tree(_file(root, entry)).body
    return next((n for n in body if isinstance(n, ast.ClassDef) and n.name == entry.name), None)


def _is_function(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _has_fields(node: ast.ClassDef, entry: ClassEntry) -> bool:
    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    return "dataclass" in decorators or "NamedTuple" in entry.bases


def _handed_on(call: ast.AST) -> list[ast.keyword]:
    is_super = isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__"
    return call.keywords if isinstance(call, ast.Call) and is_super else []


def _of_function(function: ast.FunctionDef, texts: dict[str, str]) -> list[Argument]:
    given = function.args
    names = given.args[1:] + given.kwonlyargs
    defaults: list[ast.expr | None] = [None] * (len(given.args) - len(given.defaults))
    defaults = [*defaults, *given.defaults][1:] + given.kw_defaults
    return [
        _argument(each.arg, each.annotation, default, texts)
        for each, default in zip(names, defaults, strict=True)
    ]


def _of_fields(node: ast.ClassDef, texts: dict[str, str]) -> list[Argument]:
    return [
        _argument(field.target.id, field.annotation, field.value, texts)
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if "ClassVar" not in ast.unparse(field.annotation)
    ]


def _argument(
    name: str, annotation: ast.expr | None, default: ast.expr | None, texts: dict[str, str]
) -> Argument:
    words = re.findall(r"\w+", ast.unparse(annotation)) if annotation else []
    kind = _kind(annotation) if annotation else ""
    return Argument(name, kind, _default(default), texts.get(name, ""), tuple(words))


def _default(node: ast.expr | None) -> str:
    if node is None:
        return ""
    text = ast.unparse(node)
    if isinstance(node, ast.Call) and text.endswith("()"):
        return text[:-2]
    if isinstance(node, ast.Constant):
        return {"True": "true", "False": "false", "None": "null"}.get(text, text)
    return {"()": "[]"}.get(text, text)


def _kind(node: ast.expr) -> str:
    """An annotation in words."""
    text = ast.unparse(node)
    if isinstance(node, ast.Name) and node.id in aliases():
        return _kind(aliases()[node.id])
    if isinstance(node, ast.BinOp):  # a union
        parts = [_kind(part) for part in (node.left, node.right)]
        return " or ".join("null" if part == "None" else part for part in parts)
    if isinstance(node, ast.Subscript):
        outer, inner = ast.unparse(node.value), node.slice
        if outer == "Literal":
            return ", ".join(ast.unparse(inner).strip("()").replace("'", "").split(", "))
        if outer in ("Sequence", "list", "Iterable"):
            return f"list of {_kind(inner)}"
        if outer in ("Optional", "Union"):
            union = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return " or ".join([*map(_kind, union), *(["null"] if outer == "Optional" else [])])
    return _ranged(text)


@functools.cache
def aliases() -> dict[str, ast.expr]:
    """Names that modules give to a choice of words, such as `Schedule = Literal[...]`."""
    return {
        node.targets[0].id: node.value
        for file in sorted(PACKAGE.rglob("*.py"))
        if "= Literal[" in file.read_text("utf-8")
        for node in _tree(file).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if isinstance(node.value, ast.Subscript) and ast.unparse(node.value.value) == "Literal"
    }


def _ranged(text: str) -> str:
    """A number with the range that its annotation declares."""
    try:
        found: Any = eval(text, {**vars(ranges), "Annotated": Annotated})  # our own source
    except Exception:  # names of other modules
        return text
    if get_origin(found) is not Annotated:
        return text
    kind, *more = get_args(found)
    return ", ".join([getattr(kind, "__name__", str(kind)), *map(repr, more)])


def _about(docstring: str) -> str:
    return " ".join(docstring.split("\n\n")[0].split())


def _texts(docstring: str) -> dict[str, str]:
    """The `Args:` of a docstring, name -> text."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(docstring), re.MULTILINE)
    if not section:
        return {}
    body = inspect.cleandoc(section[1])
    entries = re.split(r"^\**(\w+)(?: \([^)]*\))?:", body, flags=re.MULTILINE)[1:]
    return {
        name: " ".join(text.split("\n\n")[0].split())
        for name, text in zip(entries[::2], entries[1::2], strict=True)
    }


def method(file: Path, owner: str, name: str) -> list[Argument]:
    """Arguments of a class's method; empty where it has none of that name."""
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for child in node.body:
                if isinstance(child, ast.FunctionDef) and child.name == name:
                    return _of_function(child, _texts(ast.get_docstring(child) or ""))
    return []


def options(files: Sequence[Path]) -> Iterator[Argument]:
    """What `parser.add_argument("--name", ..., help="...")` in our files adds."""
    for file in files:
        for call in ast.walk(_tree(file)):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".add_argument"):
                given = {word.arg: word.value for word in call.keywords}
                name = ast.literal_eval(call.args[0]).removeprefix("--")
                about = ast.literal_eval(given["help"]) if "help" in given else ""
                kind = _kind(given["type"]) if "type" in given else "FILE or PRESET"
                yield Argument(name, kind, _default(given.get("default")), about)
