"""Folders of images with captions, and `pocket:<seed>`, which stands for a generated one."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from shortcut_lightning.files.cache import writing
from shortcut_lightning.files.images import SUFFIXES
from shortcut_lightning.files.whole import half_of

POCKET = "pocket:"


class Captioned(NamedTuple):
    """One image file and the caption that came with it, "" where none did."""

    path: Path
    text: str


def list_images(folder: Path, key: str) -> list[Path]:
    """The image files of a folder in order of name; hidden files and subfolders are left out.

    `key` is the config key the folder came from, for the message.
    Raises ValueError for a folder that is missing or has no image.
    """
    looked = f"looked for {', '.join(SUFFIXES)} in {folder} (data.{key})"
    if not folder.is_dir():
        found = "which is a file, not a folder" if folder.exists() else "which does not exist"
        raise ValueError(f"No images: {looked}, {found}.")
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    images = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in SUFFIXES]
    if not images:
        raise ValueError(f"No images: {looked}, found {_inventory(entries)}.")
    return images


def read_folder(folder: Path, key: str, captions: bool) -> list[Captioned]:
    """The images of a folder, with `captions` from `metadata.jsonl` (rows of `file_name` and
    `text`) or else a `.txt` file beside each image.

    Raises ValueError for a bad folder, a bad row and, where captions are asked for, images that
    have none.
    """
    images = list_images(folder, key)
    if not captions:
        return [Captioned(path, "") for path in images]
    rows = _read_metadata(folder / "metadata.jsonl")
    texts = [rows.get(path.name) or _read_sidecar(path) for path in images]
    missing = [path.name for path, text in zip(images, texts, strict=True) if not text]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} images in {folder} (data.{key}) have no caption in "
            f"metadata.jsonl nor a .txt file beside them: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Add them, or set data.use_captions to false."
        )
    return [Captioned(path, text) for path, text in zip(images, texts, strict=True)]


def is_pocket(source: str) -> bool:
    """Whether `source` names a generated subject rather than a folder."""
    return source.startswith(POCKET)


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
        half.mkdir(parents=True)
        try:
            world.write_subject(int(source.removeprefix(POCKET)), half)
            half.rename(folder)
        except OSError:
            shutil.rmtree(half)
            if not folder.exists():  # else another run was quicker, with the same pictures
                raise


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark.

    Raises ValueError for another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error.reason}); save it as UTF-8.") from error


def _read_metadata(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    rows = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[str(row["file_name"])] = str(row["text"]).strip()
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: expected a JSON object with file_name and text, "
                f"got {line[:80]!r}."
            ) from error
    return rows


def _read_sidecar(image: Path) -> str:
    path = image.with_suffix(".txt")
    return " ".join(read_text(path).split()) if path.exists() else ""


def _inventory(entries: list[Path]) -> str:
    if not entries:
        return "an empty folder"
    folders = [f"{entry.name}/" for entry in entries if entry.is_dir()]
    kinds = Counter(entry.suffix.lower() or "no suffix" for entry in entries if entry.is_file())
    files = [f"{count} x {kind}" for kind, count in sorted(kinds.items())]
    return "only " + ", ".join(files + folders[:8])
