"""Names of files as text."""

import os
from pathlib import Path


def shown(path: str | Path) -> str:
    """A path as text that any file and screen takes: bytes of a name that are not UTF-8 are
    written out, `caf\\xe9.png`."""
    text = path if isinstance(path, str) else path.as_posix()
    return os.fsencode(text).decode("utf-8", "backslashreplace")
