"""Detectors and classifiers in transformers' format, from a local folder or a hub id."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from shortcut_lightning import weights
from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.extra import versions
from shortcut_lightning.concepts.pixels import around, enlarged, to_rgb
from shortcut_lightning.ranges import CountOrNone, Share


class TransformersDetector(Detector):
    """A model that transformers loads."""

    @property
    def version(self) -> str:
        """See `Detector`."""
        return versions("transformers")


class ObjectDetector(TransformersDetector):
    """An object detector with fixed classes (DETR, RT-DETR, YOLOS, ...).

    Args:
        pretrained_model_name_or_path: A folder or hub id.
        labels: Classes to keep; empty keeps all.
        rename: What captions' concepts are called for a class, for example
            `{"watermark_text": "watermark"}`.
        threshold: Least score.
        min_side: Images with a shorter side, in pixels, are enlarged to it first.
    """

    def __init__(
        self,
        pretrained_model_name_or_path: str,
        labels: Sequence[str] = (),
        rename: dict[str, str] = {},  # noqa: B006
        threshold: Share = 0.5,
        min_side: CountOrNone = 0,
    ) -> None:
        self.pretrained_model_name_or_path = pretrained_model_name_or_path
        self.labels = labels
        self.rename = rename
        self.threshold = threshold
        self.min_side = min_side

    @cached_property
    def model(self) -> tuple[Any, Any]:
        """Processor and network, loaded at first use."""
        from transformers import AutoModelForObjectDetection

        return _load(AutoModelForObjectDetection, self.pretrained_model_name_or_path)

    @torch.no_grad()
    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        return [self._detect(enlarged(image, self.min_side)) for image in images]

    def _detect(self, image: Tensor) -> list[ConceptBox]:
        processor, network = self.model
        picture = Image.fromarray(to_rgb(image))
        inputs = processor(images=picture, return_tensors="pt").to(image.device)
        found = processor.post_process_object_detection(
            network.to(image.device)(**inputs),
            threshold=self.threshold,
            target_sizes=[(picture.height, picture.width)],
        )[0]
        names = [network.config.id2label[int(number)] for number in found["labels"]]
        kept = [i for i, name in enumerate(names) if not self.labels or name in self.labels]
        return _boxes(found, [self.rename.get(name, name) for name in names], kept, picture)


class ZeroShotDetector(TransformersDetector):
    """A detector that looks for what words say (OWL-ViT, OWLv2, Grounding DINO).

    Args:
        pretrained_model_name_or_path: A folder or hub id.
        queries: Concept name -> the words to look for, for example
            `{"watermark": "a watermark"}`.
        threshold: Least score; zero-shot scores are low, 0.1 to 0.3 is usual.
        min_side: Images with a shorter side, in pixels, are enlarged to it first.
    """

    def __init__(
        self,
        pretrained_model_name_or_path: str,
        queries: dict[str, str],
        threshold: Share = 0.2,
        min_side: CountOrNone = 0,
    ) -> None:
        if not queries:
            raise ValueError("data.detector.queries is empty: name a concept and words for it.")
        self.pretrained_model_name_or_path = pretrained_model_name_or_path
        self.queries = queries
        self.threshold = threshold
        self.min_side = min_side

    @cached_property
    def model(self) -> tuple[Any, Any]:
        """Processor and network, loaded at first use."""
        from transformers import AutoModelForZeroShotObjectDetection

        return _load(
            AutoModelForZeroShotObjectDetection, self.pretrained_model_name_or_path, "processor"
        )

    @torch.no_grad()
    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        return [self._detect(enlarged(image, self.min_side)) for image in images]

    def _detect(self, image: Tensor) -> list[ConceptBox]:
        processor, network = self.model
        picture = Image.fromarray(to_rgb(image))
        boxes: list[ConceptBox] = []
        for label, words in self.queries.items():
            inputs = processor(text=[[words]], images=picture, return_tensors="pt").to(image.device)
            found = processor.post_process_grounded_object_detection(
                network.to(image.device)(**inputs),
                threshold=self.threshold,
                target_sizes=[(picture.height, picture.width)],
            )[0]
            count = len(found["scores"])
            boxes += _boxes(found, [label] * count, list(range(count)), picture)
        return boxes


class ConceptClassifier(TransformersDetector):
    """An image classifier. It knows whether the concept is there; with `tiles` it also says where,
    by looking at each tile of the image alone.

    Args:
        pretrained_model_name_or_path: A folder or hub id.
        positive: The class that stands for the concept, for example "watermark".
        label: What the concept is called; empty for `positive`.
        threshold: Least probability.
        tiles: Tiles along a side; 0 reports existence alone, as a box without a place.
    """

    def __init__(
        self,
        pretrained_model_name_or_path: str,
        positive: str,
        label: str = "",
        threshold: Share = 0.5,
        tiles: CountOrNone = 0,
    ) -> None:
        self.pretrained_model_name_or_path = pretrained_model_name_or_path
        self.positive = positive
        self.label = label
        self.threshold = threshold
        self.tiles = tiles

    @cached_property
    def model(self) -> tuple[Any, Any]:
        """Processor and network, loaded at first use."""
        from transformers import AutoModelForImageClassification

        return _load(AutoModelForImageClassification, self.pretrained_model_name_or_path)

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        probabilities = self.probabilities(images)
        return [
            [] if p < self.threshold else self._located(image, float(p))
            for image, p in zip(images, probabilities, strict=True)
        ]

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N,) probability of the concept."""
        processor, network = self.model
        classes = network.config.label2id
        if self.positive not in classes:
            raise ValueError(
                f"data.detector.positive is '{self.positive}'; the classifier knows: "
                f"{', '.join(sorted(classes))}."
            )
        pictures = [Image.fromarray(to_rgb(image)) for image in images]
        inputs = processor(images=pictures, return_tensors="pt").to(images.device)
        logits = network.to(images.device)(**inputs).logits
        return logits.softmax(-1)[:, classes[self.positive]].float().cpu()

    def _located(self, image: Tensor, probability: float) -> list[ConceptBox]:
        label = self.label or self.positive
        boxes = tile_boxes(self.probabilities, image, label, self.threshold, self.tiles)
        return boxes or [ConceptBox(label, probability, None)]


def tile_boxes(
    probabilities: Callable[[Tensor], Tensor],
    image: Tensor,
    label: str,
    threshold: float,
    tiles: int,
) -> list[ConceptBox]:
    """Tiles of (3, H, W) that a classifier, looking at the tile alone, takes for the concept."""
    if tiles < 1:
        return []
    height, width = image.shape[-2:]
    boxes = []
    for row in range(tiles):
        for column in range(tiles):
            y = slice(row * height // tiles, (row + 1) * height // tiles)
            x = slice(column * width // tiles, (column + 1) * width // tiles)
            probability = float(probabilities(image[None, :, y, x])[0])
            if probability >= threshold:
                place = (column / tiles, row / tiles, (column + 1) / tiles, (row + 1) / tiles)
                boxes.append(ConceptBox(label, probability, place))
    return boxes


def _boxes(
    found: dict[str, Tensor], names: Sequence[str], kept: Sequence[int], picture: Image.Image
) -> list[ConceptBox]:
    boxes = [
        around(
            names[i],
            float(found["scores"][i]),
            found["boxes"][i].cpu().double().view(2, 2).numpy(),
            picture.height,
            picture.width,
        )
        for i in kept
    ]
    return [box for box in boxes if box]


def _load(kind: Any, source: str, preparing: str = "image processor") -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoProcessor

    try:
        with weights.one_line():
            if preparing == "processor":
                processor = AutoProcessor.from_pretrained(source)
            else:
                processor = AutoImageProcessor.from_pretrained(source, backend="pil")
            key = "data.detector.pretrained_model_name_or_path"
            return processor, weights.load(kind, source, key).eval().requires_grad_(False)
    except weights.WeightsError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"Cannot load the detector '{source}': {reason} Give a folder or a hub id that can be "
            "reached (data.detector.pretrained_model_name_or_path)."
        ) from error
