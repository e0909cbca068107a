"""Folders of images with captions, and `pocket:<seed>`, which stands for a generated one."""

import hashlib
import json
import logging
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from shortcut_lightning.files.atomic import atomic, half_of
from shortcut_lightning.files.cache import writing
from shortcut_lightning.files.contents import METADATA, look_into
from shortcut_lightning.files.images import SUFFIXES
from shortcut_lightning.files.names import shown
from shortcut_lightning.files.reading import read_text

log = logging.getLogger(__name__)

POCKET = "pocket:"
DRAWN = "drawn.txt"  # beside folders of a generated subject's pictures: its name


class Captioned(NamedTuple):
    """One image file, the caption that came with it, "" where none did, and its path within the
    folder as text."""

    path: Path
    text: str
    name: str


def list_images(folder: Path, key: str, recursive: bool | None = None) -> list[Path]:
    """The image files of a folder in order of name, with `recursive` those of its subfolders too.
    What is left out is named once in the log, with the reason (`files/contents.py`).

    `key` is the config key the folder came from, without "data.", for the message; `recursive` is
    None where that key has no setting for subfolders.
    Raises ValueError for a folder that is missing or has no image.
    """
    looked = f"looked for {', '.join(SUFFIXES)} in {shown(folder)} ({_full(key)})"
    if not folder.is_dir():
        found = "which is a file, not a folder" if folder.exists() else "which does not exist"
        raise ValueError(f"No images: {looked}, {found}.")
    images, left_out = look_into(folder, recursive)
    if not images:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
        raise ValueError(f"No images: {looked}, found {_inventory(entries)}.")
    if left_out:
        name_left_out(f"{shown(folder)} ({_full(key)})", tuple(left_out.items()))
    return images


def _full(key: str) -> str:
    return key if key.startswith("audit.") else f"data.{key}"


@cache  # a folder may be listed several times in a run
def name_left_out(where: str, left_out: tuple[tuple[str, str], ...]) -> None:
    """One line in the log about things that are no pictures, grouped by their reasons."""
    log.warning("Left out of %s: %s.", where, told(dict(left_out)))


def told(left_out: dict[str, str]) -> str:
    """Names by their reason, in words."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())


def read_folder(
    folder: Path, key: str, captions: bool, recursive: bool | None = None
) -> list[Captioned]:
    """The images of a folder, with `captions` from `metadata.jsonl` (rows of `file_name` and
    `text`) or else a `.txt` file beside each image. A subfolder may have a `metadata.jsonl` of its
    own; else the folder's speaks of paths within it.

    Raises ValueError for a bad folder, a bad row and, where captions are asked for, images that
    have none.
    """
    images = list_images(folder, key, recursive)
    names = [shown(path.relative_to(folder)) for path in images]
    if not captions:
        return [Captioned(path, "", name) for path, name in zip(images, names, strict=True)]
    rows = {place: _read_metadata(place / METADATA) for place in {p.parent for p in images}}
    top = rows.get(folder) or _read_metadata(folder / METADATA)
    texts = [
        rows[path.parent].get(shown(path.name)) or top.get(name) or _read_sidecar(path)
        for path, name in zip(images, names, strict=True)
    ]
    missing = [name for name, text in zip(names, texts, strict=True) if not text]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} images in {shown(folder)} ({_full(key)}) have no "
            f"caption in metadata.jsonl nor a .txt file beside them: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Add them, or set data.use_captions to false."
        )
    return [Captioned(*each) for each in zip(images, texts, names, strict=True)]


def is_pocket(source: str) -> bool:
    """Whether `source` names a generated subject rather than a folder."""
    return source.startswith(POCKET)


def of_pocket(source: str) -> bool:
    """Whether `source` names a generated subject, or a folder of its pictures (`mark_drawn`)."""
    return is_pocket(source) or (Path(source).expanduser().parent / DRAWN).is_file()


def mark_drawn(folder: Path, source: str) -> None:
    """Writes down that the folders in a folder hold pictures of a generated subject."""
    with atomic(folder / DRAWN) as half:
        half.write_text(f"{source}\n", encoding="utf-8")


def subject_folder(source: str, cache: Path) -> Path:
    """Where a generated subject (`instance/` and `reference/`) is kept: under a hash of the code
    that draws it, so that a changed world draws anew.

    Raises ValueError for a seed that is not a whole number.
    """
    from shortcut_lightning.pocket import world

    number = source.removeprefix(POCKET)
    if not number.isdecimal():
        raise ValueError(
            f"data.instance_data_dir is {source!r}; a generated subject is written pocket:<seed> "
            "with a whole number, such as pocket:3."
        )
    digest = hashlib.sha256()
    for file in sorted(Path(world.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return cache / "pocket" / f"{digest.hexdigest()[:12]}-subject-{int(number)}"


def draw_subject(source: str, cache: Path) -> None:
    """Draws a generated subject unless it is there already. Other runs may do so meanwhile."""
    from shortcut_lightning.pocket import world

    folder = subject_folder(source, cache)
    if folder.exists():
        return
    half = half_of(folder)
    with writing(folder.parent):
        half.mkdir(parents=True)  # a name of its own: what a killed run left never stands there
        try:
            world.write_subject(int(source.removeprefix(POCKET)), half)
            half.rename(folder)
        except OSError:
            shutil.rmtree(half)
            if not folder.exists():  # else another run was quicker, with the same pictures
                raise


def _read_metadata(path: Path) -> dict[str, str]:
    """File name -> caption. Raises ValueError for a row of another form, and for a second row about
    the same file."""
    return read_rows(read_text(path), shown(path)) if path.exists() else {}


def read_rows(text: str, file: str) -> dict[str, str]:
    """`_read_metadata` of the text of a file, which `file` names."""
    rows: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, said = row["file_name"], row["text"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise ValueError(f"{_expected(file, number)}, got {line[:80]!r}.") from error
        for key, value in (("file_name", name), ("text", said)):
            if not isinstance(value, str):
                raise ValueError(
                    f"{_expected(file, number)} as strings, got {key} {json.dumps(value)[:80]}."
                )
        if name in lines:
            raise ValueError(
                f"{file}, line {number}: {name} has a row already, in line {lines[name]}; "
                "keep one of them."
            )
        rows[name], lines[name] = said.strip(), number
    return rows


def _expected(file: str, number: int) -> str:
    return f"{file}, line {number}: expected a JSON object with file_name and text"


def _read_sidecar(image: Path) -> str:
    path = image.with_suffix(".txt")
    return " ".join(read_text(path).split()) if path.exists() else ""


def _inventory(entries: list[Path]) -> str:
    if not entries:
        return "an empty folder"
    folders = [f"{shown(entry.name)}/" for entry in entries if entry.is_dir()]
    suffixes = [shown(entry.suffix.lower()) for entry in entries if entry.is_file()]
    kinds = Counter(suffix or "no suffix" for suffix in suffixes)
    files = [f"{count} x {kind}" for kind, count in sorted(kinds.items())]
    return "only " + ", ".join(files + folders[:8])
