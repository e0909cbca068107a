"""Looking at a large picture part by part, for detectors that shrink what they are given."""

from collections.abc import Callable, Iterator

from torch import Tensor
from torch.nn import functional

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.geometry import XYXY, area, intersection

OVERLAP = 0.25  # of a tile with its neighbour: what is smaller than this is whole in one of them
_INSIDE = 0.7  # of the smaller box; from here on two boxes are the same thing


def tiled(
    image: Tensor, side: int, detect: Callable[[Tensor], list[ConceptBox]]
) -> list[ConceptBox]:
    """Boxes in a picture, looked at as a whole and, where it is larger than `side`, in overlapping
    squares of `side` pixels, at its own size and at a half, a quarter and so on of it: what fills a
    square is cut by the next, and found where it is smaller. Of boxes that hold one another the
    larger is kept, with the better score of the two.

    Args:
        image: (3, H, W) in [0, 1].
        side: Of the squares, in pixels; 0 looks at the whole alone.
        detect: Looks at one picture of any size.
    """
    if not side or max(image.shape[-2:]) <= side:
        return detect(image)
    found: list[ConceptBox] = []
    while max(image.shape[-2:]) > side:
        height, width = image.shape[-2:]
        for left, top, right, bottom in _squares(height, width, side):
            part = image[:, top:bottom, left:right]
            place = (left / width, top / height, right / width, bottom / height)
            found += [_placed(box, place) for box in detect(part)]
        half = [max(1, length // 2) for length in (height, width)]
        image = functional.interpolate(image[None], half, mode="bilinear", antialias=True)[0]
    return _joined([*found, *detect(image)])


def _squares(height: int, width: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    for top, bottom in _spans(height, side):
        for left, right in _spans(width, side):
            yield left, top, right, bottom


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    if length <= side:
        return [(0, length)]
    count = 1 + -(-(length - side) // int(side * (1 - OVERLAP)))
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    return [(start, start + side) for start in starts]


def _placed(box: ConceptBox, place: XYXY) -> ConceptBox:
    if box.xyxy is None:
        return box
    left, top, right, bottom = place
    x0, y0, x1, y1 = box.xyxy
    wide, high = right - left, bottom - top
    return box._replace(xyxy=(left + x0 * wide, top + y0 * high, left + x1 * wide, top + y1 * high))


def _joined(boxes: list[ConceptBox]) -> list[ConceptBox]:
    """Largest first; what lies in a larger one of the same label gives it its score at most."""
    kept: list[ConceptBox] = []
    for box in sorted(boxes, key=lambda each: -area(each.xyxy) if each.xyxy else 0.0):
        same = next((i for i, other in enumerate(kept) if _same(box, other)), None)
        if same is None:
            kept.append(box)
        elif box.score > kept[same].score:
            kept[same] = kept[same]._replace(score=box.score)
    return kept


def _same(box: ConceptBox, larger: ConceptBox) -> bool:
    if box.label != larger.label or box.xyxy is None or larger.xyxy is None:
        return box.label == larger.label and box.xyxy is larger.xyxy
    return intersection(box.xyxy, larger.xyxy) > _INSIDE * area(box.xyxy)
