"""Which files of a folder are pictures, and why the others are not: decided here for all verbs.

What is no picture is named once with the reason, except captions and what systems and this program
leave beside pictures. A picture of a kind that is read is never left out: where it cannot be read,
`files/images.py` refuses the folder, because to go on without it would be to leave a photograph
unprotected, or untouched, without a word.
"""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from shortcut_lightning.files.images import SUFFIXES
from shortcut_lightning.files.names import shown

METADATA = "metadata.jsonl"

# What systems, cameras and editors put beside pictures.
_SYSTEM = {
    "desktop.ini", "thumbs.db", "ehthumbs.db", "icon\r", "__macosx", "@eadir", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip
_SIDECARS = {".aae", ".xmp", ".thm"}
_RAW = {
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
}  # fmt: skip
_OTHER = {
    ".ai", ".cur", ".dds", ".eps", ".exr", ".fits", ".hdr", ".icns", ".ico", ".jxl", ".jxr", ".pbm",
    ".pcx", ".pdf", ".pfm", ".pgm", ".pnm", ".ppm", ".ps", ".psb", ".psd", ".qoi", ".svg", ".wdp",
    ".wmf", ".xcf", ".xpm",
}  # fmt: skip
_VIDEO = {".3gp", ".avi", ".insv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm"}
_SNIFFED = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000")


class Contents(NamedTuple):
    """What was found: pictures in order of their path, and the reason for each thing left out."""

    pictures: list[Path]
    left_out: dict[str, str]  # `shown` path within the folder -> why


def look_into(folder: Path, recursive: bool | None) -> Contents:
    """What a folder holds, with `recursive` its subfolders too; None where nobody can ask for
    those. Raises OSError for a folder that cannot be listed."""
    found = Contents([], {})
    _look(folder, folder, recursive, found)
    return found


def _look(top: Path, folder: Path, recursive: bool | None, found: Contents) -> None:
    entries = [entry for entry in sorted(folder.iterdir()) if not _known(entry)]
    pictures = {entry.stem for entry in entries if _is_picture(entry)}
    for entry in entries:
        if _is_picture(entry):
            found.pictures.append(entry)
        elif recursive and entry.is_dir() and not entry.is_symlink():
            _look(top, entry, recursive, found)
        elif entry.suffix.lower() != ".txt" or entry.stem not in pictures:
            name = shown(entry.relative_to(top)) + ("/" if entry.is_dir() else "")
            found.left_out[name] = _reason(entry, recursive)


def _known(entry: Path) -> bool:
    name = entry.name.lower()
    return (
        name.startswith(".")
        or name in _SYSTEM
        or name == METADATA
        or entry.suffix.lower() in _SIDECARS
        or (name == "measured" and (entry / "measured.json").is_file())  # beside copies
        or (name.startswith("share-") and name.endswith(".lock"))  # class images being made
    )


def _is_picture(entry: Path) -> bool:
    """By its name; a link to nothing is a picture that cannot be read."""
    if entry.suffix.lower() not in SUFFIXES:
        return False
    return entry.is_file() or (entry.is_symlink() and not entry.exists())


def _reason(entry: Path, recursive: bool | None) -> str:
    suffix = entry.suffix.lower()
    if entry.is_dir():
        if recursive:
            return "a link to a folder, which is not followed"
        return "a subfolder" + ("" if recursive is None else ", read with --data.recursive true")
    if not entry.is_file():
        return "a link to nothing" if entry.is_symlink() else "no regular file"
    if suffix in _RAW:
        return "a camera's raw file, which is not read: save it as PNG, TIFF or JPEG"
    if suffix in _OTHER:
        return "a format that is not read: save it as PNG, TIFF or JPEG"
    if suffix in _VIDEO:
        return "a video"
    if suffix == ".txt":
        return "a caption of no picture"
    kind = _sniffed(entry)
    return f"a {kind} picture by its content: give it that suffix" if kind else "no picture"


def _sniffed(entry: Path) -> str:
    try:
        with Image.open(entry, formats=_SNIFFED) as picture:
            return picture.format or ""
    except Exception:  # whatever Pillow makes of what is no picture
        return ""
