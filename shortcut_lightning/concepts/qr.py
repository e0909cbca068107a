"""QR codes: the union of OpenCV's Aruco-based finder and ZXing with its error reports.

Neither needs to read the code, which matters: what a diffusion model draws looks like a QR code but
seldom is one, so counting readable codes counts too few.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.extra import needed, opencv, versions
from shortcut_lightning.concepts.geometry import XYXY, area, intersection, overlap
from shortcut_lightning.concepts.pixels import around, enlarged, to_rgb
from shortcut_lightning.ranges import CountOrNone, Share

READ, AGREED, REPORTED, FOUND = 1.0, 0.9, 0.7, 0.5
_SAME = 0.5  # intersection over union from which two finders agree on a code
_TOUCHING = 0.05  # of the smaller box; codes do not overlap, so one of the two is an illusion
_MIN_SHARE = 1e-3  # of an image of 256 pixels; a smaller "code" is an artefact,
_MIN_PIXELS = 400  # and in a larger one what covers less than this


class QRCodeDetector(Detector):
    """QR codes in images of any size. Score 1 where the code was read, 0.9 where both finders agree
    on its place, 0.7 where the decoder gave up on it, 0.5 where only its pattern was found. Of
    boxes that overlap the best is kept: the decoder also reports squares it made up from the
    corners of a code and of something beside it.

    Measured on codes over clutter: found from 40 pixels with a quiet border of one module; a code
    without any border on clutter is mostly missed (`tests/concepts/test_hit_rates.py`).

    Args:
        label: What found codes are called.
        decoded_only: Keep codes that can be read; for a second, stricter ratio.
        min_side: Images with a shorter side, in pixels, are enlarged to it first.
        threshold: Least score.
    """

    def __init__(
        self,
        label: str = "QR code",
        decoded_only: bool = False,
        min_side: CountOrNone = 256,
        threshold: Share = 0.0,
    ) -> None:
        self.label = label
        self.decoded_only = decoded_only
        self.min_side = min_side
        self.threshold = threshold

    @property
    def version(self) -> str:
        """See `Detector`."""
        return versions("opencv-python", "opencv-python-headless", "zxing-cpp")

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`. Raises ValueError where the extra `detect` is not installed."""
        return [self._detect(to_rgb(enlarged(image, self.min_side))) for image in images]

    def _detect(self, pixels: NDArray[np.uint8]) -> list[ConceptBox]:
        found = self._by_zxing(pixels)
        if not self.decoded_only:
            found = _agreed(found, self._by_opencv(pixels))
        least = min(_MIN_SHARE, _MIN_PIXELS / (pixels.shape[0] * pixels.shape[1]))
        kept: list[ConceptBox] = []
        for box in sorted(found, key=lambda box: -box.score):
            assert box.xyxy is not None
            if box.score < self.threshold or area(box.xyxy) < least:
                continue
            if not any(_touch(box.xyxy, other.xyxy) for other in kept if other.xyxy):
                kept.append(box)
        return kept

    def _by_zxing(self, pixels: NDArray[np.uint8]) -> list[ConceptBox]:
        zxing = needed("zxingcpp", "QRCodeDetector")
        height, width = pixels.shape[:2]
        boxes = []
        for code in zxing.read_barcodes(
            np.ascontiguousarray(pixels[..., ::-1]),
            formats=zxing.BarcodeFormat.QRCode,
            return_errors=not self.decoded_only,
        ):
            place = code.position
            corners = (place.top_left, place.top_right, place.bottom_right, place.bottom_left)
            points = np.array([[corner.x, corner.y] for corner in corners], float)
            boxes.append(
                around(self.label, READ if code.valid else REPORTED, points, height, width)
            )
        return [box for box in boxes if box]

    def _by_opencv(self, pixels: NDArray[np.uint8]) -> list[ConceptBox]:
        height, width = pixels.shape[:2]
        any_found, corners = opencv().QRCodeDetectorAruco().detectMulti(pixels)
        if not any_found or corners is None:
            return []
        quads = np.asarray(corners, float).reshape(-1, 4, 2)
        boxes = [around(self.label, FOUND, quad, height, width) for quad in quads]
        return [box for box in boxes if box]


def _agreed(first: list[ConceptBox], second: list[ConceptBox]) -> list[ConceptBox]:
    """All boxes, those that have a partner in the other list with a score that says so."""

    def scored(box: ConceptBox, others: list[ConceptBox]) -> ConceptBox:
        partner = any(
            overlap(box.xyxy, other.xyxy) >= _SAME for other in others if box.xyxy and other.xyxy
        )
        return box._replace(score=max(box.score, AGREED)) if partner else box

    return [scored(box, second) for box in first] + [scored(box, first) for box in second]


def _touch(first: XYXY, second: XYXY) -> bool:
    return intersection(first, second) >= _TOUCHING * min(area(first), area(second))
