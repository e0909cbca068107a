"""A file gets its name only once it is complete."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# What a disk says that is full, over a quota, too small for a file, read-only, broken or another's.
_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
}  # fmt: skip
_DAY = 24 * 3600.0
_HOST = re.sub(r"[^\w-]", "", socket.gethostname())[:32] or "host"
_PART = re.compile(r"\.(?P<of>.+?)\.(?:(?P<host>[\w-]+)-)?(?P<process>\d+)(?:-[0-9a-f]{8})?\.part")
_OWN: set[str] = set()  # names of the halves that this process is writing
_LONGEST = 180  # bytes of a name that leave room for what a half's has more; disks take 255


def half_of(path: Path) -> Path:
    """Where a file or folder is while it is written: beside its place, hidden, and under a name
    that no other writer has, for in containers every process has the same number. What writers that
    were killed have left of the same file is removed."""
    reclaim(path)
    half = path.with_name(f".{_short(path.name)}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part")
    _OWN.add(half.name)
    return half


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Where to write the file `path`; it takes the place of an older one at the end, and what was
    begun is removed when something is raised.

    Raises OSError with `path` where a disk is full or read-only, whatever the writer makes of it.
    """
    half = half_of(path)
    try:
        with _named(path, half):
            yield half
            half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    finally:
        _OWN.discard(half.name)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same of a folder, which is there, empty, to be filled."""
    half, old = half_of(path), half_of(path)
    try:
        with _named(path, half):
            half.mkdir(parents=True)
            yield half
            if path.exists():
                path.rename(old)
            half.rename(path)
    finally:
        for left in (half, old):
            shutil.rmtree(left, ignore_errors=True)
            _OWN.discard(left.name)


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, as a whole or not at all."""
    with atomic(path) as half:
        half.write_text(text, encoding="utf-8")


def disk_error(error: BaseException) -> OSError | None:
    """What a disk said that could not be written to: `error` itself, or what the libraries that
    write for us say in other kinds; None for anything else."""
    if isinstance(error, OSError):
        return error if error.errno in _DISK else None
    if type(error).__module__.partition(".")[0] in ("safetensors", "builtins", "safetensors_rust"):
        if match := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(int(match[1]), os.strerror(int(match[1])))
        if re.search(r"PytorchStreamWriter failed|file write failed|unexpected pos ", str(error)):
            return OSError(errno.ENOSPC, "it cannot be written; the disk may be full")
    return None


@contextmanager
def _named(path: Path, half: Path) -> Iterator[None]:
    """Gives the errors of a disk the name of what was to be written."""
    try:
        yield
    except Exception as error:
        said = disk_error(error)
        own = said is not None and (said.filename is None or half.name in str(said.filename))
        if said is None or not own:
            raise
        raise OSError(said.errno, said.strerror, os.fspath(path)) from error


def reclaim(path: Path) -> None:
    """Removes what nobody writes any more of a file or folder: halves of dead processes of this
    machine, and of any other after a day."""
    for half in _halves(path.parent):
        if half.of == _short(path.name):
            _remove_abandoned(half)


def reclaim_all(folder: Path) -> None:
    """The same of every file and folder in `folder`."""
    for half in _halves(folder):
        _remove_abandoned(half)


def _short(name: str) -> str:
    """A file's name as it stands in that of its half: one that is too long for that by its hash."""
    data = os.fsencode(name)
    return name if len(data) <= _LONGEST else hashlib.sha256(data).hexdigest()[:32]


class _Half(NamedTuple):
    path: Path
    of: str
    host: str | None  # None in names of earlier versions
    process: int


def _halves(folder: Path) -> list[_Half]:
    if not folder.is_dir():
        return []
    found = ((name, _PART.fullmatch(name)) for name in os.listdir(folder))
    return [
        _Half(folder / name, match["of"], match["host"], int(match["process"]))
        for name, match in found
        if match and name not in _OWN
    ]


def _remove_abandoned(half: _Half) -> None:
    try:
        age = time.time() - half.path.stat().st_mtime
        if half.host in (None, _HOST):
            gone = half.process == os.getpid() or not _alive(half.process)
        else:
            gone = False
        if gone or age > _DAY:
            shutil.rmtree(half.path) if half.path.is_dir() else half.path.unlink()
    except OSError:  # finished or removed meanwhile, or may not be touched
        return


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
