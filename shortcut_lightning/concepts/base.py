"""Detectors of concepts that should not be learned: watermarks, codes, overlaid text."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.doors import check_pictures, check_words
from shortcut_lightning.files.reading import read_text
from shortcut_lightning.ranges import Ranged


class Detector(Ranged, ABC):
    """Finds concepts in images. Constructor arguments are kept as attributes of the same names."""

    looks_up_names: bool = False  # boxes go by the file's name, whatever the image shows
    any_size: bool = True  # sees photographs at their own size; else pictures as they are learned

    @property
    def version(self) -> str:
        """What results depend on besides the arguments: a function's code, other packages'
        versions. Part of the key of cached boxes."""
        return ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "detect" in vars(cls):
            raise TypeError(f"{cls.__name__} defines `detect`; what a detector does is its `run`.")

    @final
    def detect(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """(N, 3, H, W) float32 in [0, 1] -> one list of boxes per image, empty where none is found.

        `names` are the images' file names, for detectors that look things up. Raises ValueError for
        images of another form.
        """
        who = type(self).__name__
        check_pictures(images, who)
        if names:
            check_words(names, len(images), who, "names")
        found = self.run(images, names)
        if len(found) != len(images):
            raise ValueError(
                f"{who}.run must return a list of boxes for each of {len(images)} images, and "
                f"returned {len(found)}."
            )
        return found

    @abstractmethod
    def run(self, images: Tensor, names: Sequence[str]) -> list[list[ConceptBox]]:
        """The method itself; see `detect`."""


class NoDetector(Detector):
    """Finds nothing."""

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        return [[] for _ in images]


class PrecomputedBoxes(Detector):
    """Boxes that were found or drawn before, from a JSONL file with a row for each image:
    `{"file_name": ..., "boxes": [{"label": ..., "score": ..., "xyxy": [x0, y0, x1, y1]}]}`.

    xyxy lies in [0, 1] of the image as it is trained on, after resizing and cropping; `null` where
    only the existence is known. An image without a row has no boxes.

    Raises ValueError at once for a missing file or a row of another form.
    """

    looks_up_names = True

    def __init__(self, path: str) -> None:
        self.path = path
        self._rows: dict[str, list[ConceptBox]] = {}
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError(f"No file of boxes at '{path}' (data.detector.path).")
        for number, line in enumerate(read_text(file).split("\n"), start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                    name = text_from(row, "file_name")
                    if name in self._rows:
                        raise ValueError(f"{name} has a row already")
                    self._rows[name] = [box_from(entry) for entry in row["boxes"]]
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise ValueError(
                        f"{path}, line {number} (data.detector.path): expected file_name and boxes "
                        f"with label, score and xyxy in [0, 1], got {line[:80]!r} ({error})."
                    ) from error

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`; needs the `names`."""
        if len(names) != len(images):
            raise ValueError(f"PrecomputedBoxes got {len(names)} names for {len(images)} images.")
        return [self._rows.get(name, []) for name in names]


def box_from(entry: dict[str, Any]) -> ConceptBox:
    """A box from `label`, `score` and `xyxy`. Raises ValueError where they are out of range."""
    label, score, xyxy = text_from(entry, "label"), float(entry["score"]), entry["xyxy"]
    if not 0 <= score <= 1:
        raise ValueError(f"score {score} is not in [0, 1]")
    if xyxy is None:
        return ConceptBox(label, score, None)
    x0, y0, x1, y1 = map(float, xyxy)
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise ValueError(f"box {xyxy} is not x0 < x1, y0 < y1 within [0, 1]")
    return ConceptBox(label, score, (x0, y0, x1, y1))


def text_from(entry: Mapping[str, Any], key: str) -> str:
    """A name or label. Raises ValueError for anything but text, of which a number is none: no
    picture would have it for its name."""
    value = entry[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} is {json.dumps(value)}, not a text")
    return value
