"""What the verb `detect` does: show what is found before anybody pays for training.

python -m shortcut_lightning.data.detect_folder configs/detectors/qr.yaml photos out
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import auto_cli

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.geometry import Grid
from shortcut_lightning.data import loading, stages
from shortcut_lightning.data.implicit_concepts import write_boxes
from shortcut_lightning.files.cache import Cache, cache_folder
from shortcut_lightning.prompts import Prompts
from shortcut_lightning.report.boxes import contact_sheet

_CELLS = Grid(32)  # share of the frame is counted in cells of a grid as fine as this


def detect_folder(
    detector: Detector,
    instance_data_dir: str,
    output: str,
    resolution: int = 512,
    center_crop: bool = False,
    clean_data_dir: str = "",
) -> dict[str, object]:
    """Writes `boxes.jsonl`, `contact_sheet.png` and `summary.json` to `output`. Returns the last,
    with images and boxes by label, mean share of the frame, and the floor.

    Args:
        detector: What looks.
        instance_data_dir: Folder of pictures.
        output: Folder for the results; files of the same names are replaced.
        resolution: Shorter side in pixels at which pictures are looked at and boxes are meant.
        center_crop: Crop the middle square, as training does with `data.center_crop`.
        clean_data_dir: Pictures known to be without the concept; the share of them in which
            the detector finds one is its floor. Without them the floor is not known.
    """
    examples = _load(instance_data_dir, "instance_data_dir", resolution, center_crop)
    cache = Cache(cache_folder())
    boxes = stages.detect(examples, detector, cache, torch.device("cpu"))
    floor: dict[str, object] = {}
    if clean_data_dir:
        clean = _load(clean_data_dir, "clean_data_dir", resolution, center_crop)
        found = stages.detect(clean, detector, cache, torch.device("cpu"))
        floor = {"images": len(clean), "with a box": sum(map(bool, found))}
    folder = Path(output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    write_boxes(folder / "boxes.jsonl", dict(zip([e.name for e in examples], boxes, strict=True)))
    contact_sheet(examples, boxes).save(folder / "contact_sheet.png")
    summary = summarise(boxes) | {"floor": floor or "unknown: give clean_data_dir"}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    return summary


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


def _load(folder: str, key: str, side: int, crop: bool) -> list[Example]:
    return loading.load_examples(
        Path(folder).expanduser(), key, Prompts(""), captions=False, side=side, crop=crop
    )


if __name__ == "__main__":
    auto_cli(detect_folder)
