"""Finding faces and telling them apart, with networks that the user brings.

OpenCV (extra `detect`) runs YuNet and SFace, whose files its model zoo publishes under the MIT and
Apache-2.0 licences. InsightFace's packs, which most papers score with, are for non-commercial
research; so is what is measured with them.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from shortcut_lightning.ranges import Ranged, Share


class Face(NamedTuple):
    """One face, in pixels of its image."""

    xyxy: tuple[float, float, float, float]
    landmarks: Tensor  # (5, 2) x and y: eye, eye, nose, corner, corner of the mouth, left to right
    score: float  # in [0, 1]

    @property
    def eye_distance(self) -> float:
        """Between the eyes."""
        return float((self.landmarks[1] - self.landmarks[0]).norm())


class FaceDetector(Ranged, ABC):
    """Images -> faces. Constructor arguments are kept as attributes of the same names."""

    @abstractmethod
    def faces(self, image: Tensor) -> list[Face]:
        """(3, H, W) in [0, 1] -> its faces, the surest first."""


class YuNet(FaceDetector):
    """OpenCV's face detector.

    Args:
        path: `face_detection_yunet_2023mar.onnx` or a newer one, of OpenCV's model zoo.
        min_score: Fainter finds are left out.
    """

    def __init__(self, path: str, min_score: Share = 0.6) -> None:
        self.path = path
        self.min_score = min_score

    @cached_property
    def network(self) -> Any:
        """The detector, loaded at first use."""
        cv2 = needed("cv2", "YuNet", "pip install 'shortcut-lightning[detect]'")
        file = weights(self.path, "YuNet's network", "face_detection_yunet_2023mar.onnx")
        return cv2.FaceDetectorYN.create(file, "", (320, 320), self.min_score)

    def faces(self, image: Tensor) -> list[Face]:
        self.network.setInputSize((image.shape[-1], image.shape[-2]))
        _, rows = self.network.detect(to_bgr(image))
        return sorted(map(_face, () if rows is None else rows), key=lambda each: -each.score)


class FaceEncoder(ABC):
    """Images -> who is in them. `name` becomes part of the metrics' names."""

    name: str
    network: Any = None  # loaded when first asked for; ValueError where it cannot be had

    @abstractmethod
    def embedding(self, image: Tensor) -> Tensor | None:
        """(3, H, W) in [0, 1] -> (D,) of unit length for the surest face; None without one."""


class SFace(FaceEncoder):
    """OpenCV's face recogniser, on what a detector found.

    Args:
        path: `face_recognition_sface_2021dec.onnx` of OpenCV's model zoo.
        detector: Finds the face.
    """

    name = "sface"

    def __init__(self, path: str, detector: FaceDetector) -> None:
        self.path = path
        self.detector = detector

    @cached_property
    def network(self) -> Any:
        """The recogniser, loaded at first use."""
        cv2 = needed("cv2", "SFace", "pip install 'shortcut-lightning[detect]'")
        file = weights(self.path, "SFace's network", "face_recognition_sface_2021dec.onnx")
        return cv2.FaceRecognizerSF.create(file, "")

    def embedding(self, image: Tensor) -> Tensor | None:
        found = self.detector.faces(image)
        if not found:
            return None
        aligned = self.network.alignCrop(to_bgr(image), _row(found[0]))
        return normalize(torch.from_numpy(self.network.feature(aligned)).float().flatten(), dim=0)


class InsightFace(FaceEncoder):
    """ArcFace and the detector of an InsightFace pack, for example antelopev2 as in the paper.

    Args:
        pack: Its name.
        root: Folder whose `models/<pack>` holds its files.
    """

    def __init__(self, pack: str = "antelopev2", root: str = "~/.insightface") -> None:
        self.pack = pack
        self.root = root
        self.name = pack

    @cached_property
    def network(self) -> Any:
        """The pack, loaded at first use; never downloaded."""
        app = needed(
            "insightface.app",
            "InsightFace",
            "pip install insightface onnxruntime (its models are for non-commercial research)",
        )
        folder = Path(self.root).expanduser() / "models" / self.pack
        if not folder.is_dir():
            raise ValueError(
                f"InsightFace's pack is not at {folder}; put its .onnx files there, or set the "
                "encoder's `root` to the folder above models/."
            )
        analysis = app.FaceAnalysis(name=self.pack, root=str(Path(self.root).expanduser()))
        analysis.prepare(ctx_id=-1, det_size=(640, 640))
        return analysis

    def embedding(self, image: Tensor) -> Tensor | None:
        found = self.network.get(to_bgr(image))
        if not found:
            return None
        best = max(found, key=lambda face: face.det_score)
        return torch.from_numpy(np.asarray(best.normed_embedding)).float()


def needed(module: str, what: str, install: str) -> Any:
    """A module that is not a dependency. Raises ValueError with the way to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} needs {module} ({error}): {install}.") from error


def weights(path: str, what: str, example: str) -> str:
    """A file of weights. Raises ValueError where there is none."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(
            f"No file at '{path}' for {what}; it does not come with this package. Give the path of "
            f"a file such as {example}."
        )
    return str(file)


def to_bgr(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8 in OpenCV's order of channels."""
    levels = (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(levels[..., ::-1])


def _face(row: np.ndarray) -> Face:
    """From x, y, width, height, five points and the score, as YuNet has them."""
    x, y, width, height = (float(value) for value in row[:4])
    points = torch.from_numpy(np.array(row[4:14], np.float32)).reshape(5, 2)
    return Face((x, y, x + width, y + height), points, float(row[14]))


def _row(face: Face) -> np.ndarray:
    x0, y0, x1, y1 = face.xyxy
    points = face.landmarks.flatten().tolist()
    return np.array([x0, y0, x1 - x0, y1 - y0, *points, face.score], np.float32)
