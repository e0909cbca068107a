"""What the verb `detect` does: show what is found before anybody pays for training."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.cluster import InProcess, Pool
from shortcut_lightning.concepts.base import Detector, NoDetector
from shortcut_lightning.concepts.geometry import Grid
from shortcut_lightning.data import loading, looking, stages
from shortcut_lightning.data.buckets import Bucket
from shortcut_lightning.data.implicit_concepts import pictures_of, write_boxes
from shortcut_lightning.files.atomic import write_text
from shortcut_lightning.files.cache import Cache, cache_folder
from shortcut_lightning.files.images import write_png
from shortcut_lightning.prompts import Prompts
from shortcut_lightning.ranges import Count
from shortcut_lightning.report.boxes import contact_sheet

BOXES, SHEET, SUMMARY = "boxes.jsonl", "contact_sheet.png", "summary.json"

_CELLS = Grid(32)  # share of the frame is counted in cells of a grid as fine as this
_DRAWN = 64  # pictures of the pocket's world, which shows none of the concepts


@dataclass(frozen=True)
class Look:
    """Where pictures are looked at, and how.

    Args:
        detector: What looks.
        instance_data_dir: Folder of pictures.
        output: Folder for `boxes.jsonl`, `contact_sheet.png` and `summary.json`.
        resolution: Shorter side in pixels of the picture that boxes are meant for.
        center_crop: Crop the middle square, as training does with `data.training.center_crop`.
        clean_data_dir: Pictures known to be without the concept; the share of them in which the
            detector finds one is its floor. Empty takes 64 drawn pictures of the pocket's world,
            which are clean for certain but unlike photographs. A detector that looks boxes up by
            name has no floor.
        overwrite: Replace what is in `output`.
        recursive: Look at pictures of subfolders too, as training does with `data.recursive`.
        detection_side: Longer side in pixels at which photographs are looked at, at most.
        sizes: The buckets that boxes are meant for instead, as training has with `data.bucketing`.
    """

    detector: Detector
    instance_data_dir: str
    output: str
    resolution: Count = 512
    center_crop: bool = False
    clean_data_dir: str = ""
    overwrite: bool = False
    recursive: bool = False
    detection_side: Count = stages.LOOKED_AT
    sizes: Sequence[Bucket] = ()

    def __post_init__(self) -> None:
        if isinstance(self.detector, NoDetector):
            raise ValueError(
                "data.detector is not set, so nothing would be found; give one, such as "
                "--data.detector configs/detectors/qr.yaml"
            )
        if not self.output:
            raise ValueError("--output is empty; give a folder for boxes and contact sheet.")
        there = [name for name in (BOXES, SHEET, SUMMARY) if (self.folder / name).exists()]
        if there and not self.overwrite:
            raise ValueError(
                f"{self.folder} already holds {there[0]}; give another --output, or "
                "--overwrite true."
            )

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.output).expanduser()


def detect_folder(
    look: Look,
    cache: Cache | None = None,
    device: torch.device | None = None,
    pool: Pool = InProcess(),  # noqa: B008
) -> dict[str, Any]:
    """Looks, and writes the three files. Returns the summary: images and boxes by label, mean share
    of the frame, and the floor.

    Boxes are kept in the cache, where a training with the same pictures and detector finds them.
    `pool` does the work.
    """
    cache, device = cache or Cache(cache_folder()), device or torch.device("cpu")
    folders = (look.instance_data_dir, look.clean_data_dir, cache.folder, cache.ranks)
    instances, clean_folder = loading.subject_folders(*folders)
    examples = _load(instances, "instance_data_dir", look)
    boxes = stages.detect(examples, look.detector, cache, device, look.detection_side, pool)
    floor = _floor(look, clean_folder, cache, device, pool)
    look.folder.mkdir(parents=True, exist_ok=True)
    write_boxes(look.folder / BOXES, dict(zip([e.name for e in examples], boxes, strict=True)))
    write_png(contact_sheet(examples, boxes), look.folder / SHEET)
    summary = summarise(boxes) | {"looked at": _sizes(examples, look), "floor": floor}
    write_text(look.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return summary


def told(summary: dict[str, Any]) -> str:
    """The summary as lines for a terminal."""
    lines = [
        f"{summary['with a box']} of {summary['images']} images with a concept "
        f"(looked at: {summary['looked at']})"
    ]
    for label, of in summary["labels"].items():
        lines.append(
            f"  {label}: {of['images']} images, {of['boxes']} boxes, "
            f"{of['share of the frame']:.1%} of the frame where it is"
        )
    floor = summary["floor"]
    if "left out" in floor:
        return "\n".join([*lines, f"on clean images: {floor['left out']}"])
    return "\n".join(
        [*lines, f"on clean images {floor['with a box']} of {floor['images']} ({floor['of']})"]
    )


def summarise(boxes: Sequence[Sequence[ConceptBox]]) -> dict[str, object]:
    """How many images there are, and for each label the images that show it, its boxes, and the
    share of the frame it covers in those images, overlaps counted once."""
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    shares: defaultdict[str, float] = defaultdict(float)
    for image in boxes:
        for label, cells in _CELLS.by_label(image).items():
            seen[label] += 1
            shares[label] += sum(cells.values()) / len(_CELLS)
        counts.update(box.label for box in image)
    labels = {
        label: {
            "images": seen[label],
            "boxes": counts[label],
            "share of the frame": round(shares[label] / seen[label], 4),
        }
        for label in sorted(seen)
    }
    return {"images": len(boxes), "with a box": sum(map(bool, boxes)), "labels": labels}


def _sizes(examples: Sequence[Example], look: Look) -> str:
    """At which size the pictures were looked at, in words."""
    files = looking.photographs(examples, look.detector)
    own = sum(file is not None for file in files)
    learned = "in their buckets" if look.sizes else f"at {look.resolution} pixels"
    if not own:
        return f"all as they are learned, {learned}"
    return (
        f"{own} of {len(files)} at their own size, up to {look.detection_side} pixels; others "
        f"{learned}"
    )


def _floor(
    look: Look, clean_folder: Path | None, cache: Cache, device: torch.device, pool: Pool
) -> dict[str, object]:
    if look.detector.looks_up_names:
        return {
            "left out": "boxes are looked up by file name, so clean pictures of the same names "
            "would count as false alarms"
        }
    if look.clean_data_dir and clean_folder is not None:
        where, clean = look.clean_data_dir, _load(clean_folder, "clean_data_dir", look)
    else:
        where = "the pocket's world; give --clean_data_dir with pictures like yours"
        clean = pictures_of("pocket:0", _DRAWN, look.resolution)
    alarms = stages.detect(clean, look.detector, cache, device, look.detection_side, pool)
    return {"images": len(clean), "with a box": sum(map(bool, alarms)), "of": where}


def _load(folder: Path, key: str, look: Look) -> list[Example]:
    return loading.load_examples(
        folder,
        key,
        Prompts(""),
        captions=False,
        side=look.resolution,
        crop=look.center_crop,
        recursive=look.recursive,
        sizes=look.sizes,
    )
