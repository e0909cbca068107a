"""The method's own data, for whoever has the archive: ICD.zip with ICD-QR and ICD-Text.

It is published at `zhili-liu/implicit-concept-dataset` on the Hugging Face hub (2024, 238 MB); the
third set of the paper, ICD-Watermark, is not in it. **No licence is shown there**, so this package
neither ships nor fetches it, and whether you may use it is for you to find out.

    python -m shortcut_lightning.data.icd ICD.zip sets/icd
"""

import csv
import io
import json
import logging
from collections import defaultdict
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from jsonargparse import auto_cli

from shortcut_lightning.data.implicit_concepts import write_rows
from shortcut_lightning.files.atomic import atomic, write_text
from shortcut_lightning.files.images import SUFFIXES

log = logging.getLogger(__name__)

NOTICE = (
    "Unpacked from the Implicit Concept Dataset (zhili-liu/implicit-concept-dataset), which shows "
    "no licence: ask its authors before you publish anything made from it.\n"
)
_CAPTIONS = ("text", "caption", "prompt")


def unpack_icd(archive: str, output: str) -> dict[str, int]:
    """Writes `output/<folder>/` for each folder of images in the archive, with `metadata.jsonl`
    where captions are known (metadata.jsonl, metadata.csv or .txt files). Returns images by folder.

    The archive's inner layout is not documented; what is read is the image-folder layout its viewer
    shows. Raises ValueError for something that is no zip file, or has no images.
    """
    try:
        with ZipFile(Path(archive).expanduser()) as packed:
            counts = _unpack(packed, Path(output).expanduser())
    except (OSError, BadZipFile) as error:
        raise ValueError(f"'{archive}' cannot be read as a zip file: {error}") from error
    if not counts:
        raise ValueError(f"'{archive}' holds no image ({', '.join(SUFFIXES)}).")
    log.warning(NOTICE.strip())
    return counts


def _unpack(packed: ZipFile, output: Path) -> dict[str, int]:
    names = [
        name
        for name in packed.namelist()
        if not name.endswith("/")
        and "__MACOSX" not in name
        and ".." not in PurePosixPath(name).parts
    ]
    captions = _captions(packed, names)
    rows: dict[PurePosixPath, list[dict[str, str]]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix.lower() not in SUFFIXES:
            continue
        folder = output / str(path.parent).lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / path.name) as half:
            half.write_bytes(packed.read(name))
        counts[str(path.parent)] += 1
        if name in captions:
            rows[path.parent].append({"file_name": path.name, "text": captions[name]})
    for parent, found in rows.items():
        write_rows(output / str(parent).lstrip("/") / "metadata.jsonl", found)
    if counts:
        write_text(output / "NOTICE.txt", NOTICE)
    return dict(counts)


def _captions(packed: ZipFile, names: list[str]) -> dict[str, str]:
    """Path of an image -> its caption."""
    found: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.suffix == ".txt":
            text = " ".join(packed.read(name).decode("utf-8", "replace").split())
            found |= {str(path.with_suffix(suffix)): text for suffix in SUFFIXES}
        elif path.name in ("metadata.jsonl", "metadata.csv"):
            content = packed.read(name).decode("utf-8")
            if path.suffix == ".csv":
                entries = list(csv.DictReader(io.StringIO(content)))
            else:
                entries = [json.loads(line) for line in content.splitlines() if line.strip()]
            for entry in entries:
                caption = next((str(entry[key]) for key in _CAPTIONS if entry.get(key)), "")
                if caption and entry.get("file_name"):
                    found[str(path.parent / entry["file_name"])] = caption
    return found


if __name__ == "__main__":
    auto_cli(unpack_icd)
