"""Reading the files that users name or put into their folders.

From regular files alone: a pipe that nobody writes to, or a device, would keep the program waiting
for good.
"""

import os
import stat
from pathlib import Path

from shortcut_lightning.files.names import shown


def refuse_pipe(path: str | Path) -> None:
    """Raises ValueError if there is something at `path` that is neither a file nor a folder."""
    try:
        mode = os.stat(os.path.expanduser(path)).st_mode
    except (OSError, ValueError):  # no path at all
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError(f"'{shown(path)}' is a pipe or a device; save what it gives as a file")


def refuse_pipes(folder: Path) -> None:
    """The same of what lies in a folder and in its own folders, as those of a model do."""
    for pattern in ("*", "*/*"):
        for path in folder.glob(pattern):
            refuse_pipe(path)


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises ValueError for what is no regular file."""
    refuse_pipe(path)
    if path.is_dir():
        raise ValueError(f"'{shown(path)}' is a folder, not a file")
    return path.read_bytes()


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark and with any line ends.

    Raises ValueError for another encoding, and for what is no regular file.
    """
    refuse_pipe(path)
    if path.is_dir():
        raise ValueError(f"'{shown(path)}' is a folder, not a text file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{shown(path)} is not in UTF-8 ({error.reason}); save it as UTF-8."
        ) from error
