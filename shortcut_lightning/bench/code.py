"""Whether a model is the one that a result was made with, and the code of a user's own classes;
for the package's, see `files/code.py`."""

import hashlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from shortcut_lightning.files.code import said
from shortcut_lightning.pocket import BUILT_IN


def is_changed(model: str) -> bool:
    """Whether these, a name and a fingerprint, are of a built-in model that has other weights now.
    Networks that measure and restore are not in a fingerprint."""
    name, _, noted = model.partition(" ")
    return bool(noted) and name in BUILT_IN and noted != _fingerprint(name)


@lru_cache
def _fingerprint(name: str) -> str:
    from shortcut_lightning import backbones  # slow import

    return backbones.load(name).fingerprint()


def code_of_users(settings: Any) -> dict[str, str]:
    """Module -> hash, of the modules outside the environment whose classes or functions settings
    name by path: a user changes one of his own and runs again."""
    modules = {path.rpartition(".")[0] for path in _paths(settings)}
    files = {module: file for module in sorted(modules) if (file := _file_of(module))}
    return {
        module: hashlib.sha256(said(file.read_text("utf-8")).encode()).hexdigest()[:16]
        for module, file in files.items()
    }


def _paths(value: Any) -> Iterator[str]:
    """Texts that may be the path of a class or a function."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _paths(inner)
    elif isinstance(value, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value):
        yield value


def _file_of(module: str) -> Path | None:
    """The file of a module that is neither this package's nor an installed one's."""
    if module.partition(".")[0] in (__name__.partition(".")[0], *sys.stdlib_module_names):
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # no such module: whoever imports it says so
        return None
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    file = Path(spec.origin)
    return None if installed & set(file.parents) or file.suffix != ".py" else file
