"""What each stage did to the photographs, in pictures and numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.concepts.geometry import overlap
from shortcut_lightning.metrics.concept_ratio import concept_ratio
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.metrics.fidelity import fidelity
from shortcut_lightning.report import stages as pages
from shortcut_lightning.report.page import Section

# Attribute of the data module, and what its pictures are called.
STAGES = {
    "given": "given",
    "perturbed": "perturbed",
    "published": "marked",
    "trained_on": "purified",
}

_CHANGES = ("linf_255", "psnr", "ssim")


class Stages(EvaluationCallback):
    """Each photograph as given, perturbed, marked, purified and with what was detected; and
    `stage_<name>_linf_255`, `_psnr` and `_ssim` of what a stage left against what was given, over
    the photographs that are not as they were. A stage that changed nothing is left out.

    With `data.contamination`, whose places are known: `stage_marks_found`, the share of marked
    images in which a detected box meets a pasted one, and `stage_false_alarms`, the share of
    unmarked images with a box.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, Estimate] = {}

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        if samples.arm != "tuned":
            return {}
        numbers = self._numbers = {}
        given, *stages = stages_of(datamodule).items()
        for name, images in stages:
            pairs = [(a.image, b.image) for a, b in zip(images, given[1], strict=True)]
            found = [fidelity(after, before) for after, before in pairs if differ(after, before)]
            for key in _CHANGES:
                values = torch.tensor([getattr(one, key) for one in found])
                numbers[f"stage_{name}_{key}"] = mean_estimate(values)
        pasted, boxes = getattr(datamodule, "pasted", []), getattr(datamodule, "found", [])
        if any(pasted) and len(pasted) == len(boxes):
            places = list(zip(pasted, boxes, strict=True))
            met = [any(_meet(a, b) for a in put for b in seen) for put, seen in places if put]
            numbers["stage_marks_found"] = concept_ratio(met)
            if spared := [bool(seen) for put, seen in places if not put]:
                numbers["stage_false_alarms"] = concept_ratio(spared)
        return numbers

    def show(self, samples: Mapping[str, Samples], trainer: Trainer, folder: Path) -> list[Section]:
        datamodule: Any = getattr(trainer, "datamodule", None)
        stages = stages_of(datamodule)
        if not stages["given"] or "tuned" not in samples:
            return []
        boxes: Sequence[Sequence[ConceptBox]] = getattr(datamodule, "found", [])
        numbers = {
            name: {key: self._numbers[f"stage_{name}_{key}"].value for key in _CHANGES}
            for name in list(stages)[1:]
            # Of several subjects each has numbers of its own, among the measurements.
            if f"stage_{name}_{_CHANGES[0]}" in self._numbers
            and not hasattr(datamodule, "subjects")
        }
        return [pages.section(stages, boxes, numbers, getattr(datamodule, "seconds", {}))]


def stages_of(datamodule: Any) -> dict[str, list[Example]]:
    """Pictures of each stage that changed something, those given first; only where erasing has not
    dropped any, so that they belong together."""
    given: list[Example] = getattr(datamodule, "given", [])
    stages, before = {"given": given}, given
    for attribute, name in list(STAGES.items())[1:]:
        images: list[Example] = getattr(datamodule, attribute, [])
        if len(images) == len(given) and any(
            differ(a.image, b.image) for a, b in zip(images, before, strict=True)
        ):
            stages[name] = before = images
    return stages


def differ(after: Tensor, before: Tensor) -> bool:
    """Whether anything was changed."""
    return not torch.equal(after, before)


def _meet(put: ConceptBox, seen: ConceptBox) -> bool:
    """Whether a detected box is at the mark: a tenth of their union is common, since readers box
    single words of a strip."""
    return bool(put.xyxy and seen.xyxy and overlap(put.xyxy, seen.xyxy) >= 0.1)
