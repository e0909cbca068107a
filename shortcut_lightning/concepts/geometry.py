"""Boxes as words: an image is cut into bins, and each bin is a word (arXiv 2310.05873, section 3).

Boxes are half-open: a box that ends on the edge between two bins touches the first one alone. Every
touched bin counts, not only the corners.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Literal

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.prompts import location_token

XYXY = tuple[float, float, float, float]
Encoding = Literal["bins", "boundary", "corners"]

MIN_REMAINING = 0.1  # of a box's area; less after a crop is not worth a word
_SLACK = 1e-6  # in bins: 1/3 written with six digits must not spill into the next bin


@dataclass(frozen=True)
class Grid:
    """`size` x `size` bins over an image, numbered row by row from 0.

    CLIP's 75 words hold a full frame up to size 8. Raises ValueError for a size outside 1 to 32.
    """

    size: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 32:
            raise ValueError(
                f"grid_size is {self.size}; give 1 to 32 bins a side (8 fills CLIP's 75 words; "
                "data.erasing.grid_size and model.grid_size)."
            )

    def __len__(self) -> int:
        return self.size**2

    @property
    def tokens(self) -> list[str]:
        """The word of each bin, in order."""
        return [location_token(number) for number in range(len(self))]

    def overlaps(self, box: XYXY, encoding: Encoding = "bins") -> dict[int, float]:
        """Touched bins of a box in [0, 1] and the part of each that it covers, in (0, 1].

        `boundary` keeps the bins along the box's edge, `corners` the first and the last.
        A box without area inside the image touches none.
        """
        x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) * self.size for value in box)
        if x1 - x0 <= _SLACK or y1 - y0 <= _SLACK:
            return {}
        columns, rows = self._touched(x0, x1), self._touched(y0, y1)
        found = {}
        for row in rows:
            for column in columns:
                on_side = column in (columns[0], columns[-1])
                on_top = row in (rows[0], rows[-1])
                if encoding == "boundary" and not (on_side or on_top):
                    continue
                if encoding == "corners" and (column, row) not in (
                    (columns[0], rows[0]),
                    (columns[-1], rows[-1]),
                ):
                    continue
                width = min(x1, column + 1) - max(x0, column)
                height = min(y1, row + 1) - max(y0, row)
                found[row * self.size + column] = width * height
        return found

    def bins(self, boxes: Iterable[ConceptBox]) -> list[int]:
        """All bins that any of the boxes touches, ascending."""
        return sorted({bin for box in boxes if box.xyxy for bin in self.overlaps(box.xyxy)})

    def by_label(
        self, boxes: Iterable[ConceptBox], encoding: Encoding = "bins"
    ) -> dict[str, dict[int, float]]:
        """Label -> touched bins with the largest part any one box covers; labels in order.

        A label known to exist only has no bins.
        """
        found: dict[str, dict[int, float]] = defaultdict(dict)
        for box in boxes:
            bins = found[box.label]
            for bin, part in (self.overlaps(box.xyxy, encoding) if box.xyxy else {}).items():
                bins[bin] = max(part, bins.get(bin, 0.0))
        return {label: found[label] for label in sorted(found)}

    def box(self, bin: int) -> XYXY:
        """The area of one bin in [0, 1]."""
        row, column = divmod(bin, self.size)
        return (
            column / self.size,
            row / self.size,
            (column + 1) / self.size,
            (row + 1) / self.size,
        )

    def _touched(self, low: float, high: float) -> range:
        first = min(floor(low + _SLACK), self.size - 1)
        last = min(max(ceil(high - _SLACK) - 1, first), self.size - 1)
        return range(first, last + 1)


def largest(bins: dict[int, float], count: int) -> list[int]:
    """The `count` bins that are covered most, ascending; of equals the lower number."""
    kept = sorted(bins, key=lambda bin: (-bins[bin], bin))[: max(count, 0)]
    return sorted(kept)


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many of `wanted[i]` words each concept gets of `room`: all, or an even split in which
    what one does not need goes to the others."""
    granted = [0] * len(wanted)
    left = min(max(room, 0), sum(wanted))
    while left > 0:
        hungry = [i for i, want in enumerate(wanted) if granted[i] < want]
        each = max(left // len(hungry), 1)
        for i in hungry[:left]:
            more = min(each, wanted[i] - granted[i])
            granted[i] += more
            left -= more
    return granted


def mirrored(boxes: Iterable[ConceptBox]) -> list[ConceptBox]:
    """The boxes of the image flipped left to right."""
    return [
        box._replace(xyxy=(1 - box.xyxy[2], box.xyxy[1], 1 - box.xyxy[0], box.xyxy[3]))
        if box.xyxy
        else box
        for box in boxes
    ]


def cropped(boxes: Iterable[ConceptBox], window: XYXY) -> list[ConceptBox]:
    """The boxes in the coordinates of a crop, `window` being its place in [0, 1] of the image.

    A box of which less than a tenth is left is dropped.
    """
    left, top, right, bottom = window
    kept = []
    for box in boxes:
        if box.xyxy is None:
            kept.append(box)
            continue
        x0, y0, x1, y1 = box.xyxy
        inside = (max(x0, left), max(y0, top), min(x1, right), min(y1, bottom))
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            continue
        if area(inside) < MIN_REMAINING * area(box.xyxy):
            continue
        width, height = right - left, bottom - top
        kept.append(
            box._replace(
                xyxy=(
                    (inside[0] - left) / width,
                    (inside[1] - top) / height,
                    (inside[2] - left) / width,
                    (inside[3] - top) / height,
                )
            )
        )
    return kept


def area(box: XYXY) -> float:
    """Share of the image."""
    return (box[2] - box[0]) * (box[3] - box[1])


def intersection(first: XYXY, second: XYXY) -> float:
    """Share of the image that both cover."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def overlap(first: XYXY, second: XYXY) -> float:
    """Intersection over union, in [0, 1]."""
    both = intersection(first, second)
    return both / (area(first) + area(second) - both) if both else 0.0
