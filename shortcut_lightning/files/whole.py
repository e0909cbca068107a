"""A file gets its name only once it is complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def half_of(path: Path) -> Path:
    """Where a file or folder is while this process writes it: beside its place, and hidden."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


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
