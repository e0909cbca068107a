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
from shortcut_lightning.concepts.extra import needed, opencv
from shortcut_lightning.concepts.geometry import area, overlap
from shortcut_lightning.concepts.pixels import around, enlarged, to_rgb

READ, REPORTED, FOUND = 1.0, 0.75, 0.5  # scores: decoded, decoder's error report, pattern only
_SAME = 0.3  # intersection over union from which two finders mean the same code
_MIN_SHARE = 1e-3  # of the image; a smaller "code" is an artefact


class QRCodeDetector(Detector):
    """QR codes in images of any size; score 1 where the code was read, 0.75 where the decoder gave
    up on it, 0.5 where only its pattern was found.

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
        min_side: int = 256,
        threshold: float = 0.0,
    ) -> None:
        self.label = label
        self.decoded_only = decoded_only
        self.min_side = min_side
        self.threshold = threshold

    def detect(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`. Raises ValueError where the extra `detect` is not installed."""
        return [self._detect(to_rgb(enlarged(image, self.min_side))) for image in images]

    def _detect(self, pixels: NDArray[np.uint8]) -> list[ConceptBox]:
        found = self._by_zxing(pixels)
        if not self.decoded_only:
            found += self._by_opencv(pixels)
        kept: list[ConceptBox] = []
        for box in sorted(found, key=lambda box: -box.score):
            assert box.xyxy is not None
            if box.score < self.threshold or area(box.xyxy) < _MIN_SHARE:
                continue
            if all(overlap(box.xyxy, other.xyxy) < _SAME for other in kept if other.xyxy):
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
