"""Detectors from elsewhere: any function, several at once, ultralytics where it is installed."""

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector, box_from
from shortcut_lightning.concepts.extra import needed, versions
from shortcut_lightning.concepts.pixels import around, to_rgb
from shortcut_lightning.files.cache import code_of
from shortcut_lightning.ranges import Share


class FunctionDetector(Detector):
    """A function of your own: `function(image) -> boxes`, the image (H, W, 3) 8-bit RGB, a box a
    dict of `label`, `score` and `xyxy` in [0, 1] (None for existence only).

    Args:
        function: Where it is, as `package.module:name`.
        threshold: Least score.
    """

    def __init__(self, function: str, threshold: Share = 0.5) -> None:
        self.function = function
        self.threshold = threshold
        place, _, name = function.partition(":")
        try:
            module = import_module(place)
            self._call: Callable[[Any], Any] = getattr(module, name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"data.detector.function is '{function}', which cannot be imported ({error}); "
                "expected package.module:name."
            ) from error
        self._code = code_of(module)

    @property
    def version(self) -> str:
        """The code of the function's module; see `Detector`."""
        return self._code

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`. Raises ValueError when the function returns something else."""
        try:
            found = [[box_from(entry) for entry in self._call(to_rgb(image))] for image in images]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self.function} (data.detector.function) must return dicts of label, score and "
                f"xyxy in [0, 1]: {error}"
            ) from error
        return [[box for box in boxes if box.score >= self.threshold] for boxes in found]


class Detectors(Detector):
    """Several detectors, one after the other; what any of them finds counts.

    Args:
        detectors: For example one for QR codes and one for text.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self.detectors = detectors
        self.looks_up_names = any(detector.looks_up_names for detector in detectors)
        self.any_size = all(detector.any_size for detector in detectors)

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        found = [detector.detect(images, names) for detector in self.detectors]
        return [[box for boxes in image for box in boxes] for image in zip(*found, strict=True)]


class UltralyticsDetector(Detector):
    """A YOLO model file. ultralytics is AGPL-3.0 and not an extra of this package: install it
    yourself where its licence suits you.

    Args:
        model: The model file.
        rename: Concept name for a class of the model.
        threshold: Least confidence.
    """

    def __init__(
        self,
        model: str,
        rename: dict[str, str] = {},  # noqa: B006
        threshold: Share = 0.5,
    ) -> None:
        self.model = model
        self.rename = rename
        self.threshold = threshold

    @cached_property
    def network(self) -> Any:
        """The model, loaded at first use."""
        package = needed("ultralytics", "UltralyticsDetector", "pip install ultralytics (AGPL-3.0)")
        return package.YOLO(self.model)

    @property
    def version(self) -> str:
        """See `Detector`."""
        return versions("ultralytics")

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Tensor) -> list[ConceptBox]:
        pixels = np.ascontiguousarray(to_rgb(image)[..., ::-1])
        found = self.network.predict(pixels, conf=self.threshold, verbose=False)[0]
        boxes = []
        rows = zip(found.boxes.xyxyn, found.boxes.conf, found.boxes.cls, strict=True)
        for place, score, number in rows:
            name = found.names[int(number)]
            points = place.cpu().double().view(2, 2).numpy()
            boxes.append(around(self.rename.get(name, name), float(score), points, 1, 1))
        return [box for box in boxes if box]
