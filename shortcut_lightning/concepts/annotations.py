"""Boxes that other tools wrote: COCO and CSV files. JSONL is `PrecomputedBoxes`.

Such files speak of the pictures as they lie in the folder. Where the file knows their sizes, a box
is carried into the centre crop that is trained on.
"""

import csv
import io
import json
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector, text_from
from shortcut_lightning.concepts.geometry import XYXY, cropped
from shortcut_lightning.files.reading import read_text
from shortcut_lightning.ranges import Share

_ROUNDING = 1.0  # pixels by which a box may begin before the picture


class _Entry(NamedTuple):
    box: ConceptBox  # in [0, 1] of the picture in the folder
    aspect: float  # width over height of that picture; 0 where unknown
    path: str  # of that picture, as the file has it


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
        except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
            place = f", {self._place}" if self._place else ""
            raise ValueError(
                f"{path}{place} (data.detector.path) is not what {type(self).__name__} reads: "
                f"{type(error).__name__} {error}. {self.form}"
            ) from error

    form = ""  # what a file should look like, for the message
    _place = ""  # the line or entry that is being read, for the message

    @abstractmethod
    def _read(self, file: Path) -> None:
        """Fills `_entries`, and keeps `_place` at what it reads."""

    def _add(
        self, name: str, label: str, score: float, box: XYXY, size: tuple[float, float] | None
    ) -> None:
        """A box in pixels of a picture of `size` (width, height), or in [0, 1] without. What
        reaches beyond the far edges is cut, as is a rounding error before the near ones.

        Raises ValueError for a box that is none.
        """
        if not all(map(math.isfinite, (*box, score, *(size or ())))):
            raise ValueError(f"box {list(box)} with score {score}, size {size} has no number")
        if not 0 <= score <= 1:
            raise ValueError(f"score {score} is not in [0, 1]")
        if size is not None and not min(size) > 0:
            raise ValueError(f"the picture's size is {size[0]:g} x {size[1]:g}")
        width, height = size or (1.0, 1.0)
        near, unit = (_ROUNDING, "the picture") if size else (_ROUNDING / 100, "[0, 1]")
        if size is None and max(box) > 1 + near:
            raise ValueError(
                f"box {list(box)} is not in [0, 1]; pixels need the picture's width and height"
            )
        if not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"box {list(box)} is not x0 < x1, y0 < y1")
        if min(box[:2]) < -near or box[0] >= width or box[1] >= height:
            raise ValueError(f"box {list(box)} does not begin within {unit}")
        scaled = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
        x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in scaled)
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"box {list(box)} does not lie within {unit}")
        if score >= self.threshold:
            entry = _Entry(
                ConceptBox(label, score, (x0, y0, x1, y1)), width / height if size else 0.0, name
            )
            self._entries[PurePosixPath(name).name].append(entry)

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`; needs the `names`."""
        if len(names) != len(images):
            raise ValueError(
                f"{type(self).__name__} got {len(names)} names for {len(images)} images."
            )
        aspect = images.shape[-1] / images.shape[-2]
        return [
            [box for entry in self._of(name) for box in _in_crop(entry, aspect)] for name in names
        ]

    def _of(self, name: str) -> list[_Entry]:
        """The entries of a picture; the file's paths may begin further up than the folder."""
        known = self._entries.get(PurePosixPath(name).name, [])
        return [entry for entry in known if f"/{entry.path}".endswith(f"/{name}")]


class CocoBoxes(FileBoxes):
    """Boxes of a COCO file (`images`, `annotations`, `categories`; `bbox` in pixels).

    Args:
        path: The JSON file.
        threshold: Least `score` of an annotation; one without a score has 1.
    """

    form = "Expected COCO's images (id, file_name, width, height), annotations and categories."

    def _read(self, file: Path) -> None:
        content = json.loads(read_text(file))
        labels = {row["id"]: text_from(row, "name") for row in content["categories"]}
        images = {row["id"]: row for row in content["images"]}
        for number, row in enumerate(content["annotations"]):
            self._place = f"annotations[{number}]"
            image = images[row["image_id"]]
            x, y, w, h = map(float, row["bbox"])
            name, label = text_from(image, "file_name"), labels[row["category_id"]]
            size = (float(image["width"]), float(image["height"]))
            self._add(name, label, float(row.get("score", 1.0)), (x, y, x + w, y + h), size)


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
        reader = csv.DictReader(io.StringIO(read_text(file), newline=""))
        for row in reader:
            self._place = f"line {reader.line_num}"
            x0, y0, x1, y1 = (float(row[key]) for key in ("x0", "y0", "x1", "y1"))
            width, height = row.get("width"), row.get("height")
            if bool(width) != bool(height):
                raise ValueError("one of width and height is empty")
            size = (float(width), float(height)) if width and height else None
            score, box = float(row.get("score") or 1.0), (x0, y0, x1, y1)
            self._add(text_from(row, "file_name"), text_from(row, "label"), score, box, size)


def _in_crop(entry: _Entry, aspect: float) -> list[ConceptBox]:
    """The box in the centre crop of the given aspect, none where hardly any of it is left."""
    if not entry.aspect or abs(entry.aspect / aspect - 1) < 0.02:  # resizing rounds to pixels
        return [entry.box]
    width, height = min(aspect / entry.aspect, 1.0), min(entry.aspect / aspect, 1.0)
    window = ((1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2)
    return cropped([entry.box], window)
