"""The YAML files that a command line leads to, read with care before anything is imported.

What YAML leaves open ends in silence, a hang or a traceback far away: the same key twice, anchors
that unfold into millions of values, bytes that are no UTF-8, a pipe that nobody writes to.
"""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from shortcut_lightning import presets
from shortcut_lightning.cli.errors import UserError
from shortcut_lightning.files import reading

_MOST_VALUES = 100_000  # of one file with its anchors unfolded; our largest has some hundreds


def config_files(argv: list[str]) -> list[Path]:
    """The values of `--config` that are paths (it also takes YAML text and URLs)."""
    given = [a.split("=", 1)[1] for a in argv if re.match(r"(--config|-c)=", a)]
    given += [value for key, value in pairwise(argv) if key in ("--config", "-c")]
    return [Path(value) for value in given if not re.search(r"://|\n|[{}]", value)]


def refuse_pipes(argv: Iterable[str]) -> None:
    """Raises UserError for a value that is a pipe, a socket or a device: reading may never end."""
    for word in argv:
        for value in {word, word.partition("=")[2]} - {""}:
            refuse_pipe(value)


def refuse_pipe(path: str | Path) -> None:
    """The same for one value."""
    try:
        reading.refuse_pipe(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def read(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        UserError: not UTF-8 in name or content, not YAML, a key twice, or anchors out of bounds.
    """
    try:
        os.fspath(path).encode("utf-8")
        text = path.read_bytes().decode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"the name of {os.fsencode(path)!r} is not UTF-8; rename it") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise UserError(
            f"'{path}', line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    parsed(text, f"'{path}'")
    return text


def parsed(text: str, where: str) -> Any:
    """What a YAML text says; `where` names it in errors.

    Raises:
        UserError: not YAML, a key twice, or anchors that unfold out of bounds.
    """
    try:
        root = yaml.compose(text, Loader=_LOADER)
        if root is not None and _values(root, {}, where) > _MOST_VALUES:
            raise UserError(f"{where}: its anchors unfold into more than {_MOST_VALUES} values")
        return yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "cannot be read"
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise UserError(f"{where}{place} is not YAML: {problem}") from error
    except RecursionError as error:
        raise UserError(f"{where}: its values are nested too deep") from error


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _values(node: yaml.Node, known: dict[int, int], where: str) -> int:
    """How many values a node unfolds into; looks at what anchors repeat once only."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise UserError(f"{where}, line {_line(node)}: an anchor holds itself")
        return known[id(node)]
    known[id(node)] = 0
    count = 1 + sum(_values(child, known, where) for child in _children(node, where))
    known[id(node)] = count
    return count


def _children(node: yaml.Node, where: str) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    if isinstance(node, yaml.MappingNode):
        first: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if before := first.get(key.value):
                    raise UserError(
                        f"{where}, line {_line(key)}: '{key.value}' stands twice, first"
                        f" on line {_line(before)}"
                    )
                first[key.value] = key
            yield from (key, value)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def reached(argv: Iterable[str]) -> dict[Path, str]:
    """Every YAML file that the arguments, or those files, name, and what it says.

    Raises:
        UserError: as `read`, and for pipes.
    """
    texts: dict[Path, str] = {}
    # An argument, or what follows its first "=", may be a path with spaces; so may a quoted name.
    words = list(argv)
    words += [f"'{part}'" for word in words for part in (word, word.partition("=")[2])]
    queue = [path for word in words for path in _named(word, Path())]
    while queue:
        path = queue.pop()
        refuse_pipe(path)
        if _is_file(path) and path.resolve() not in texts:
            text = texts[path.resolve()] = read(path)
            # A path inside a YAML file is relative to that file.
            queue += [*_named(text, path.parent), *presets.mentioned(parsed(text, f"'{path}'"))]
    return texts


def _named(text: str, folder: Path) -> list[Path]:
    names = re.findall(r"[^\s=:'\"\[\],]+\.ya?ml", text)
    names += re.findall(r"""['"]([^'"\n]+\.ya?ml)['"]""", text)
    return [folder / name for name in names]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or a null byte: a sentence, not a path
        return False
