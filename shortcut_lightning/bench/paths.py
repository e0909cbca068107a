"""Files that a matrix names: from where its cells are run, and what they say, for a cell's key."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_LARGE, _END = 64 << 20, 1 << 20  # bytes


def subject_options(subject: str, folder: Path) -> dict[str, str]:
    """Options that say where a subject's images are."""
    if subject.startswith("pocket:"):
        return {"data.instance_data_dir": subject}
    root = Path(located(subject, folder))
    if (root / "instance").is_dir() and (root / "reference").is_dir():
        return {
            "data.instance_data_dir": str(root / "instance"),
            "data.reference_data_dir": str(root / "reference"),
        }
    return {"data.instance_data_dir": str(root)}


def located(value: str, folder: Path) -> str:
    """A path as written in the matrix's file, from where it is run."""
    path = folder / Path(value).expanduser()
    return str(path.resolve()) if path.exists() else value


def content(value: Any, folder: Path) -> Any:
    """A value of YAML with what files say in the place of their names: those of YAML, which lie
    beside the matrix, and what a run finds from where it is started, weights and pictures."""
    if isinstance(value, Mapping):
        return {str(key): content(inner, folder) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [content(inner, folder) for inner in value]
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        file = folder / Path(value).expanduser()
        if file.is_file():
            return content(_parsed(file, file.stat().st_mtime_ns), file.parent)
    if isinstance(value, str) and ("/" in value or Path(value).suffix):
        return _held(os.path.expanduser(value)) or value
    return value


def _held(path: str) -> Any:
    """What a file or the files of a folder hold; None where there is neither."""
    # os.path: pathlib raises for a prompt that is too long for a file's name.
    if os.path.isfile(path):
        return _hashed(Path(path), os.stat(path).st_mtime_ns)
    return _listed(Path(path)) if os.path.isdir(path) else None


def _listed(root: Path) -> list[list[str]]:
    return [
        [str(file.relative_to(root)), _hashed(file, file.stat().st_mtime_ns)]
        for file in sorted(root.rglob("*"))
        if file.is_file()
    ]


def pictures(subject: str, folder: Path) -> Any:
    """The files of a subject's folders by content; a name that is no folder as it is."""
    root = Path(located(subject, folder))
    return _listed(root) if root.is_dir() else subject


@lru_cache(None)
def _parsed(file: Path, modified: int) -> Any:
    return yaml.safe_load(file.read_text("utf-8"))


@lru_cache(None)
def _hashed(file: Path, modified: int) -> str:
    """Of all that a file holds; of large ones, weights, their size and both ends."""
    size = file.stat().st_size
    if size <= _LARGE:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    with file.open("rb") as opened:
        first = opened.read(_END)
        opened.seek(-_END, os.SEEK_END)
        return hashlib.sha256(f"{size} ".encode() + first + opened.read()).hexdigest()


def written(value: Any, folder: Path) -> str:
    """A value of YAML as the command line takes it; names of files are located."""
    value = _located_within(value, folder)
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")  # YAML's, not JSON's
    return json.dumps(value)


def _located_within(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _located_within(inner, folder) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_located_within(inner, folder) for inner in value]
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        return located(value, folder)
    return value
