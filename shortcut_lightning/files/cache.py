"""Things made once and kept on disk under a key of everything they depend on.

The folder is `data.cache_dir`, else `$SHORTCUT_LIGHTNING_CACHE`, else
`~/.cache/shortcut_lightning`. Deleting it is always safe. Entries are safetensors files with a
checksum. A file gets its name only once it is complete, so a killed run or a full disk loses
nothing made before.
"""

import hashlib
import inspect
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from shortcut_lightning import __version__
from shortcut_lightning.files.atomic import atomic

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


class Ranks(Protocol):
    """The part of a Lightning strategy that sharing work between processes takes."""

    @property
    def is_global_zero(self) -> bool: ...

    def broadcast(self, obj: Any, src: int = 0) -> Any: ...


class OneProcess:
    """`Ranks` of a process that is alone."""

    is_global_zero = True

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj


def cache_folder(given: str = "") -> Path:
    """The folder in force; see the head of this file for the order."""
    default = os.environ.get("SHORTCUT_LIGHTNING_CACHE") or "~/.cache/shortcut_lightning"
    return Path(given or default).expanduser()


def describe(value: Any) -> Any:
    """What a value is, as JSON: tensors and files by content, folders by their files' names, sizes
    and times, objects by class path and the constructor arguments, which they must keep as
    attributes of the same names, by their `version` where they have one, and classes of others by
    their code."""
    match value:
        case None | bool() | int() | float():
            return value
        case Tensor():
            pixels = value.detach().cpu().contiguous()
            digest = hashlib.sha256(pixels.flatten().view(torch.uint8).numpy().tobytes())
            return ["tensor", str(pixels.dtype), list(pixels.shape), digest.hexdigest()]
        case str() | Path():
            # os.path: pathlib raises for a caption that is too long for a file's name.
            path = os.path.expanduser(value)
            if os.path.isfile(path):
                return ["file", hashlib.sha256(Path(path).read_bytes()).hexdigest()]
            if os.path.isdir(path):
                found = sorted(file for file in Path(path).rglob("*") if file.is_file())
                states = [(str(file.relative_to(path)), file.stat()) for file in found]
                return ["folder", [[name, at.st_size, at.st_mtime_ns] for name, at in states]]
            return str(value)
        case list() | tuple():
            return [describe(item) for item in value]
        case Mapping():
            return {str(key): describe(item) for key, item in sorted(value.items())}
    names = [name for name in inspect.signature(type(value)).parameters if name != "self"]
    path = f"{type(value).__module__}.{type(value).__qualname__}"
    if missing := [name for name in names if not hasattr(value, name)]:
        raise ValueError(
            f"{type(value).__name__} does not keep its argument '{missing[0]}' as an attribute of "
            f"that name; set self.{missing[0]} in its __init__, or call super().__init__ with it."
        )
    described = [path, {name: describe(getattr(value, name)) for name in names}]
    # This package's classes have its version; a user changes one of his own and runs again.
    ours = type(value).__module__.partition(".")[0] == __name__.partition(".")[0]
    version = getattr(value, "version", "") or ("" if ours else code_of(type(value)))
    return [*described, version] if version else described


def code_of(thing: type | ModuleType) -> str:
    """A hash of the file that a class or module is written in; "" where there is none."""
    try:
        return hashlib.sha256(Path(inspect.getfile(thing)).read_bytes()).hexdigest()[:16]
    except (OSError, TypeError):  # typed in, or built into Python
        return ""


def key_of(**parts: Any) -> str:
    """A hash of the package's version and of all parts; see `describe`."""
    text = json.dumps(describe({"version": __version__} | parts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def together(make: Callable[[], None], ranks: Ranks) -> None:
    """Runs `make` on rank 0 while the others wait; where it fails, all of them fail.

    The others wait in a collective: work beyond the strategy's timeout (half an hour by default) is
    best done once by a single process, whose cache the run on several then finds.
    """
    everywhere(make if ranks.is_global_zero else lambda: None, ranks, workers=1)


def everywhere(make: Callable[[], None], ranks: Ranks, workers: int) -> None:
    """Runs `make` on every rank, the first `workers` of which may fail; where one does, all fail,
    so that none waits for it."""
    failure: Exception | None = None
    try:
        make()
    except Exception as error:
        failure = error
    own = "" if failure is None else str(failure) or repr(failure)
    messages = [ranks.broadcast(own, src=rank) for rank in range(workers)]
    if failure is not None:
        raise failure
    for rank, message in enumerate(messages):
        if message:
            raise ValueError(f"Rank {rank} failed: {message}")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what a disk says into what a user can do about it."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"Cannot write in {folder} ({error.strerror or error}); free some space or set "
            "data.cache_dir or $SHORTCUT_LIGHTNING_CACHE to another disk. What was made before is "
            "kept."
        ) from error


class Cache:
    """Tensors on disk, by name. One rank makes an entry, all read it."""

    def __init__(self, folder: Path, ranks: Ranks | None = None) -> None:
        self.folder = folder
        self.ranks: Ranks = ranks or OneProcess()
        self.found: list[str] = []  # stages whose results were there already

    def path(self, name: str, **parts: Any) -> Path:
        """Where the entry of stage `name` for these `parts` is or will be."""
        return self.folder / name / f"{key_of(**parts)}.safetensors"

    def get(self, name: str, make: Callable[[], Tensors], **parts: Any) -> Tensors:
        """The entry of stage `name` for these `parts`, made now if there is none.

        A damaged entry is made again with a warning. Raises ValueError where the disk refuses.
        """
        path = self.path(name, **parts)
        made: list[Tensors] = []

        def ensure() -> None:
            tensors = _read(path)
            if tensors is not None:
                self.found.append(name)
            if tensors is None:
                with alone(path) as waited:
                    tensors = _read(path) if waited else None
                    if tensors is None:
                        tensors = make()
                        with writing(path.parent):
                            _write(path, tensors)
            made.append(tensors)

        together(ensure, self.ranks)
        tensors = made[0] if made else _read(path)
        if tensors is None:
            raise ValueError(
                f"{path} was made by rank 0 but another rank cannot read it; on several machines "
                "data.cache_dir must be on a disk they share."
            )
        return tensors


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Where several runs want to make `path`, one does. The others wait, are told so, and find it;
    so the lock's file, which stands beside it, may go as soon as one is done."""
    lock, waited = FileLock(path.with_suffix(".lock")), False
    with writing(path.parent):  # a disk that refuses does so before the work, which may take hours
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):  # where none can be made, a lock waits for good
            pass
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("Another run is making %s; waiting for it.", path)
            lock.acquire()
            waited = True
    try:
        yield waited
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _read(path: Path) -> Tensors | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            checksum = (file.metadata() or {}).get("checksum")
        if checksum != _checksum(tensors):
            raise ValueError("its checksum differs")
    except (OSError, ValueError, SafetensorError) as error:
        warnings.warn(f"Cache entry {path} is damaged ({error}); making it again.", stacklevel=2)
        return None
    return tensors


def _write(path: Path, tensors: Tensors) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as half:
        half.write_bytes(serialize(tensors, {"checksum": _checksum(tensors)}))


def _checksum(tensors: Tensors) -> str:
    return hashlib.sha256(json.dumps(describe(tensors)).encode()).hexdigest()
