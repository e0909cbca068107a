"""Boxes that other tools wrote: COCO and CSV files. JSONL is `PrecomputedBoxes`.

Such files speak of the pictures as they lie in the folder. Where the file knows their sizes, a box
is carried into the centre crop that is trained on.
"""

import csv
import json
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.geometry import XYXY, cropped
from shortcut_lightning.ranges import Share


class _Entry(NamedTuple):
    box: ConceptBox  # in [0, 1] of the picture in the folder
    aspect: float  # width over height of that picture; 0 where unknown


class FileBoxes(Detector):
    """Boxes by file name."""

    looks_up_names = True

    def __init__(self, path: str, threshold: Share = 0.5) -> None:
        self.path = path
        self.threshold = threshold
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError(f"No file of boxes at '{path}' (data.detector.path).")
        self._entries: dict[str, list[_Entry]] = defaultdict(list)
        try:
            self._read(file)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} (data.detector.path) is not what {type(self).__name__} reads: "
                f"{type(error).__name__} {error}. {self.form}"
            ) from error

    form = ""  # what a file should look like, for the message

    @abstractmethod
    def _read(self, file: Path) -> None:
        """Fills `_entries`."""

    def _add(self, name: str, label: str, score: float, box: XYXY, aspect: float) -> None:
        x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in box)
        if x0 < x1 and y0 < y1 and score >= self.threshold:
            entry = _Entry(ConceptBox(label, min(score, 1.0), (x0, y0, x1, y1)), aspect)
            self._entries[name].append(entry)

    def detect(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`; needs the `names`."""
        if len(names) != len(images):
            raise ValueError(
                f"{type(self).__name__} got {len(names)} names for {len(images)} images."
            )
        aspect = images.shape[-1] / images.shape[-2]
        return [
            [box for entry in self._entries.get(name, []) for box in _in_crop(entry, aspect)]
            for name in names
        ]


class CocoBoxes(FileBoxes):
    """Boxes of a COCO file (`images`, `annotations`, `categories`; `bbox` in pixels).

    Args:
        path: The JSON file.
        threshold: Least `score` of an annotation; one without a score has 1.
    """

    form = "Expected COCO's images (id, file_name, width, height), annotations and categories."

    def _read(self, file: Path) -> None:
        content = json.loads(file.read_text("utf-8"))
        labels = {row["id"]: str(row["name"]) for row in content["categories"]}
        images = {row["id"]: row for row in content["images"]}
        for row in content["annotations"]:
            image = images[row["image_id"]]
            width, height = float(image["width"]), float(image["height"])
            x, y, w, h = map(float, row["bbox"])
            box = (x / width, y / height, (x + w) / width, (y + h) / height)
            name, label = Path(image["file_name"]).name, labels[row["category_id"]]
            self._add(name, label, float(row.get("score", 1.0)), box, width / height)


class CsvBoxes(FileBoxes):
    """Boxes of a CSV file with the columns file_name, label, x0, y0, x1, y1 and, where known,
    score, width, height. Coordinates are in pixels when there is a width and height, else in
    [0, 1] of the image as it is trained on.

    Args:
        path: The CSV file.
        threshold: Least `score` of a row; one without a score has 1.
    """

    form = "Expected the columns file_name, label, x0, y0, x1, y1 [, score, width, height]."

    def _read(self, file: Path) -> None:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                x0, y0, x1, y1 = (float(row[key]) for key in ("x0", "y0", "x1", "y1"))
                width, height = (float(row.get(key) or 0) for key in ("width", "height"))
                sized = width > 0 and height > 0
                w, h = (width, height) if sized else (1.0, 1.0)
                self._add(
                    row["file_name"],
                    row["label"],
                    float(row.get("score") or 1.0),
                    (x0 / w, y0 / h, x1 / w, y1 / h),
                    width / height if sized else 0.0,
                )


def _in_crop(entry: _Entry, aspect: float) -> list[ConceptBox]:
    """The box in the centre crop of the given aspect, none where hardly any of it is left."""
    if not entry.aspect or abs(entry.aspect / aspect - 1) < 0.02:  # resizing rounds to pixels
        return [entry.box]
    width, height = min(aspect / entry.aspect, 1.0), min(entry.aspect / aspect, 1.0)
    window = ((1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2)
    return cropped([entry.box], window)
