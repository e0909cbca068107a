"""A file gets its name only once it is complete."""

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

_DAY = 24 * 3600.0
_HOST = re.sub(r"[^\w-]", "", socket.gethostname())[:32] or "host"
_PART = re.compile(r"\.(?P<of>.+?)\.(?:(?P<host>[\w-]+)-)?(?P<process>\d+)(?:-[0-9a-f]{8})?\.part")
_OWN: set[str] = set()  # names of the halves that this process is writing


def half_of(path: Path) -> Path:
    """Where a file or folder is while it is written: beside its place, hidden, and under a name
    that no other writer has, for in containers every process has the same number. What writers that
    were killed have left of the same file is removed."""
    reclaim(path)
    half = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part")
    _OWN.add(half.name)
    return half


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write the file `path`; it takes the place of an older one at the end, and what was
    begun is removed when something is raised."""
    half = half_of(path)
    try:
        yield half
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    finally:
        _OWN.discard(half.name)


def reclaim(path: Path) -> None:
    """Removes what nobody writes any more of a file or folder: halves of dead processes of this
    machine, and of any other after a day."""
    for half in _halves(path.parent):
        if half.of == path.name:
            _remove_abandoned(half)


def reclaim_all(folder: Path) -> None:
    """The same of every file and folder in `folder`."""
    for half in _halves(folder):
        _remove_abandoned(half)


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
