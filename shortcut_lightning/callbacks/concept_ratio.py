"""How often generated images show a concept that nobody asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.geometry import Grid
from shortcut_lightning.files.images import write_png
from shortcut_lightning.metrics.concept_ratio import bin_ratio, concept_ratio, f_star_r
from shortcut_lightning.metrics.encoders import ImageEncoder, PocketAttributes, image_features
from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.metrics.frechet import frechet_distance
from shortcut_lightning.ranges import Bins
from shortcut_lightning.report import concepts as pages
from shortcut_lightning.report.boxes import colours, contact_sheet, outlined
from shortcut_lightning.report.page import Section

_CHUNK = 64  # images a detector sees at a time
_SHOWN = 12  # generated images of each arm in the report


class ConceptRatio(EvaluationCallback):
    """`concept_ratio`: share of generated images in which the detector finds a concept; also
    `concept_ratio_<label>` where several are known, `concept_ratio_floor` on the references, which
    are taken to be clean, and `f_star_r_<encoder>`, Frechet distance to them times the ratio in %.

    Args:
        detector: Another one than the training's: a detector cannot see its own blind spots.
        encoder: Features for the Frechet distance.
        grid_size: Bins along a side of the map of where concepts appear.
    """

    def __init__(
        self,
        detector: Detector,
        encoder: ImageEncoder = PocketAttributes(),  # noqa: B008
        grid_size: Bins = 8,
    ) -> None:
        self.detector = detector
        self.encoder = encoder
        self.grid = Grid(grid_size)
        self.extractor = type(detector).__name__
        # By arm and subject: the images that were measured, and what was found in each.
        self._found_in: dict[tuple[str, str], tuple[Samples, list[list[ConceptBox]]]] = {}
        self._warnings: list[str] = []

    def load(self) -> None:
        self.detector.detect(torch.zeros(1, 3, 64, 64))  # what is missing is said at once

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        self._warnings = []
        boxes = self._found(samples.images.to(samples.device))
        self._found_in[samples.arm, self.of_whom] = samples, boxes
        numbers = {"concept_ratio": concept_ratio([bool(image) for image in boxes])}
        labels = self._labels(datamodule)
        if len(labels) > 1:
            for label in labels:
                shows = [any(box.label == label for box in image) for image in boxes]
                numbers[f"concept_ratio_{label.replace(' ', '_')}"] = concept_ratio(shows)
        if type(getattr(datamodule, "detector", None)) is type(self.detector):
            self._warnings.append(
                f"ConceptRatio counts with {self.extractor}, which also found the concepts in "
                "training: what it overlooks there it overlooks here. Use another detector in one "
                "of the two places."
            )
        references = _clean(datamodule)
        if not references:
            self._warnings.append(
                "ConceptRatio has no clean references (data.reference_data_dir), so the detector's "
                "floor and the distance to clean data are not known."
            )
            return numbers
        clean = torch.stack([example.image for example in references]).to(samples.device)
        if samples.arm == "tuned":
            floor = [bool(image) for image in self._found(clean)]
            numbers["concept_ratio_floor"] = concept_ratio(floor)
        distance = frechet_distance(
            image_features(self.encoder, samples.images, samples.device),
            image_features(self.encoder, clean, samples.device),
        )
        ratio = numbers["concept_ratio"]
        return numbers | {f"f_star_r_{self.encoder.name}": f_star_r(distance, ratio)}

    def warnings(self) -> list[str]:
        return self._warnings

    def show(self, samples: Mapping[str, Samples], trainer: Trainer, folder: Path) -> list[Section]:
        datamodule: Any = getattr(trainer, "datamodule", None)
        sections = []
        trained_on = getattr(datamodule, "trained_on", [])
        boxes = getattr(datamodule, "boxes", [])
        if any(boxes):
            write_png(contact_sheet(trained_on, boxes), folder / "concepts_in_training.png")
            sections.append(pages.found_in_training(trained_on, boxes))
        return sections + [
            self._section(of_whom, its, found, folder)
            for (_, of_whom), (its, found) in self._found_in.items()
        ]

    def _section(
        self, of_whom: str, samples: Samples, found: list[list[ConceptBox]], folder: Path
    ) -> Section:
        colour = colours(box.label for image in found for box in image)
        shown = list(zip(samples.images, samples.prompts, found, strict=True))
        heat = bin_ratio([self.grid.bins(image) for image in found], self.grid.size)
        bins = f"concept_bins_{samples.arm}{of_whom.replace('/', '_')}.csv"
        np.savetxt(folder / bins, heat.numpy(), fmt="%.4f", delimiter=",")
        return pages.section(
            f"Concepts in images of the {samples.arm} model {of_whom}".rstrip(),
            f"{sum(map(bool, found))} of {len(found)} images, by {self.extractor}. The map gives "
            f"the share of images, in percent, with a concept in each bin ({bins}).",
            [(prompt, outlined(image, boxes, colour)) for image, prompt, boxes in shown[:_SHOWN]],
            heat,
        )

    def _labels(self, datamodule: SubjectData | None) -> list[str]:
        """What is counted apart: labels seen in any arm of this subject so far, and those of
        training's detector where the two have words in common. A concept that is gone has 0."""
        seen = {
            box.label
            for (_, of_whom), (_, found) in self._found_in.items()
            if of_whom == self.of_whom
            for image in found
            for box in image
        }
        trained = {box.label for image in getattr(datamodule, "found", []) for box in image}
        return sorted(seen | trained if seen & trained or not seen else seen)

    def _found(self, images: Tensor) -> list[list[ConceptBox]]:
        return [image for chunk in images.split(_CHUNK) for image in self.detector.detect(chunk)]


def _clean(datamodule: SubjectData | None) -> list[Example]:
    """The held-out references; none where the data module falls back to what is trained on."""
    references = list(getattr(datamodule, "references", []))
    return references if getattr(datamodule, "held_out", True) else []
