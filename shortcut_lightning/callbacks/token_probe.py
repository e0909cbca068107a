"""Does this word draw the concept there? A test of what the words of places have learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from shortcut_lightning.batch import ConceptBox, PromptBatch
from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData, prompts_of
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.geometry import overlap
from shortcut_lightning.metrics.concept_ratio import concept_ratio
from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.ranges import Seed, Share
from shortcut_lightning.report import concepts as pages
from shortcut_lightning.report.boxes import outlined
from shortcut_lightning.report.page import Section

_QUADRANTS = (
    (0.0, 0.0, 0.5, 0.5),
    (0.5, 0.0, 1.0, 0.5),
    (0.0, 0.5, 0.5, 1.0),
    (0.5, 0.5, 1.0, 1.0),
)
_ASKED, _FOUND = "asked for", "found"
_COLOUR = {_ASKED: "#4363d8", _FOUND: "#e6194b"}


class TokenProbe(EvaluationCallback):
    """`token_draws_there`: share of images, asked in their *positive* prompt for a concept at a
    place, in which the detector finds one there, of that label where it ever uses it; and the
    pictures of it in the report.

    Elsewhere the words of places never stand in a positive prompt. Needs a detector in the data
    module that found something, and `data.erasing.caption: geometry`.

    Args:
        detector: What looks for the concept.
        prompt: What else the images show, with `{instance}` and `{class}` as in
            `data.evaluation.prompts`; empty for the first of those.
        places: Boxes in [0, 1] to ask for.
        seeds: One image of each place for each.
    """

    def __init__(
        self,
        detector: Detector,
        prompt: str = "",
        places: Sequence[tuple[Share, Share, Share, Share]] = _QUADRANTS,
        seeds: Sequence[Seed] = (0, 1, 2, 3),
    ) -> None:
        if not places or not seeds:
            raise ValueError("TokenProbe.places or TokenProbe.seeds is empty; give at least one.")
        self.detector = detector
        self.prompt = prompt
        self.places = list(places)
        self.seeds = list(seeds)
        self.extractor = type(detector).__name__
        self._module: LightningModule | None = None
        self._sections: dict[str, Section] = {}  # by subject

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._module = pl_module

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        data: Any = datamodule
        captioner = getattr(data, "captioner", None)
        labels = sorted({box.label for image in getattr(data, "boxes", []) for box in image})
        if samples.arm != "tuned":
            return {}
        self._sections.pop(self.of_whom, None)
        if not labels or captioner is None:
            return {}
        if captioner.erasing.caption != "geometry":
            return {}
        prompt = prompts_of(data).evaluated(self.prompt) or data.eval_prompts[0]
        asked = [ConceptBox(labels[0], 1.0, place) for place in self.places for _ in self.seeds]
        images = self._sample([captioner.instance(prompt, [box]) for box in asked])
        found = self.detector.detect(images.to(samples.device))
        named = any(box.label == labels[0] for boxes in found for box in boxes)
        there = [_meets(box, boxes, named) for box, boxes in zip(asked, found, strict=True)]
        pictures = [
            (
                "found there" if hit else "found elsewhere" if boxes else "not found",
                outlined(
                    image,
                    [
                        box._replace(label=_ASKED),
                        *(b._replace(label=_FOUND) for b in boxes if b.xyxy),
                    ],
                    _COLOUR,
                ),
            )
            for image, box, boxes, hit in zip(images, asked, found, there, strict=True)
        ]
        self._sections[self.of_whom] = pages.section(
            f"Does the word draw the concept there? {self.of_whom}".rstrip(),
            f"'{prompt}' with {captioner.name(labels[0])} asked for in the blue box: "
            f"{sum(there)} of {len(there)} images show it there, by {self.extractor} (red).",
            pictures,
        )
        return {"token_draws_there": concept_ratio(there)}

    def show(self, samples: Mapping[str, Samples], trainer: Trainer, folder: Path) -> list[Section]:
        return list(self._sections.values())

    @torch.no_grad()
    def _sample(self, prompts: list[str]) -> Tensor:
        seeds = self.seeds * len(self.places)
        module: Any = self._module
        images = []
        for start in range(0, len(prompts), 8):
            part = prompts[start : start + 8]
            ids = torch.arange(start, start + len(part))
            batch = PromptBatch(part, [""] * len(part), torch.tensor(seeds)[ids], ids)
            with module.trainer.precision_plugin.forward_context():
                images.append(module.sample(batch).float().cpu())
        return torch.cat(images)


def _meets(asked: ConceptBox, found: Sequence[ConceptBox], named: bool) -> bool:
    """Whether a found box, where `named` of the same label, lies where one was asked for: they
    overlap by a fifth of their union."""
    assert asked.xyxy is not None
    return any(
        box.xyxy is not None and overlap(asked.xyxy, box.xyxy) >= 0.2
        for box in found
        if not named or box.label == asked.label
    )
