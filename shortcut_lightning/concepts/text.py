"""Overlaid text, with RapidOCR (PP-OCR on onnxruntime; its models come in the package).

Recognition is always on: detection alone reports one box around the whole frame on text-free noise.
Boxes over `max_share` of the frame are dropped for the same reason.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.extra import INSTALL, needed, versions
from shortcut_lightning.concepts.geometry import area
from shortcut_lightning.concepts.pixels import around, enlarged, to_rgb
from shortcut_lightning.concepts.tiles import tiled
from shortcut_lightning.ranges import Count, CountOrNone, Share, SomeShare


class TextDetector(Detector):
    """Lines of text. Boxes are a little wider than the letters (intersection over union with a
    tight box about 0.5 to 0.7), which erasing tolerates.

    Args:
        label: What found text is called; a textual watermark can be "watermark".
        threshold: Least confidence of the recognised words, in [0, 1].
        max_share: Boxes over this share of the frame are dropped.
        min_side: Images with a shorter side, in pixels, are enlarged to it first.
        detection_side: Pixels of the longer side at which text is looked for. 320 costs about 0.1 s
            an image; raise it for small print in large images.
        min_letters: Least letters and digits in the recognised words.
        tile: Pictures with a longer side, in pixels, are looked at in squares of this side as well,
            so that small print on a photograph is seen; 0 looks at the whole alone.
    """

    def __init__(
        self,
        label: str = "text",
        threshold: Share = 0.5,
        max_share: SomeShare = 0.6,
        min_side: CountOrNone = 256,
        detection_side: Count = 320,
        min_letters: CountOrNone = 2,
        tile: CountOrNone = 640,
    ) -> None:
        self.label = label
        self.threshold = threshold
        self.max_share = max_share
        self.min_side = min_side
        self.detection_side = detection_side
        self.min_letters = min_letters
        self.tile = tile

    @cached_property
    def reader(self) -> Any:
        """RapidOCR, loaded at first use."""
        needed("onnxruntime", "TextDetector")
        rapidocr = needed("rapidocr", "TextDetector")
        threads = int(os.environ.get("OMP_NUM_THREADS", "-1"))
        return rapidocr.RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.text_score": self.threshold,
                "Det.limit_type": "max",
                "Det.limit_side_len": self.detection_side,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            }
        )

    @property
    def version(self) -> str:
        """See `Detector`."""
        return versions("rapidocr", "onnxruntime")

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`. Raises ValueError where the extra `detect` is not installed."""
        return [tiled(enlarged(image, self.min_side), self.tile, self._detect) for image in images]

    def _detect(self, image: Tensor) -> list[ConceptBox]:
        height, width = image.shape[-2:]
        try:
            found = self.reader(np.ascontiguousarray(to_rgb(image)[..., ::-1]))
        except OSError as error:
            raise ValueError(f"RapidOCR's models cannot be read ({error}): {INSTALL}") from error
        if found.boxes is None or found.txts is None:
            return []
        boxes = []
        for points, words, score in zip(found.boxes, found.txts, found.scores, strict=True):
            box = around(self.label, score, np.asarray(points, float), height, width)
            letters = sum(letter.isalnum() for letter in words)
            if box is None or box.xyxy is None or letters < self.min_letters:
                continue
            if score >= self.threshold and area(box.xyxy) <= self.max_share:
                boxes.append(box)
        return boxes
