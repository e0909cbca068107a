"""What became of a run's photographs, stage by stage, for who serves, measures and reports them."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.concepts.erasing import Captioner
from shortcut_lightning.data.buckets import Bucket, size_of

log = logging.getLogger(__name__)


class Prepared:
    """Empty until the stages have run.

    Attributes:
        given: Instance images as loaded, resized and cropped.
        perturbed: The same as the attack leaves them.
        protected: Which of them it was given.
        published: The same with what contamination pasted.
        pasted: Where it was pasted in each.
        trained_on: The same after the stages.
        copies: Published images as further purifiers leave them, learnt beside `trained_on`.
        references: Held-out images of the subject, or the given ones; always square.
        validated: The same as the validation loss sees them: in buckets, where there are any.
        held_out: Whether the references are held-out images.
        class_images: Class images; empty without prior preservation.
        noisy_copies: Their perturbed copies; empty where none are wanted.
        found: What the detector found in each image that the stages left.
        boxes: The same in each image of `trained_on`: those found may be dropped or painted over.
        captioner: Writes the prompts of images with concepts; None while nothing is erased.
        warnings: Why results of this attack and these purifiers would mislead.
        seconds: Seconds each stage took, by its name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given: list[Example] = []
        self.perturbed: list[Example] = []
        self.protected: list[int] = []
        self.published: list[Example] = []
        self.pasted: list[list[ConceptBox]] = []
        self.trained_on: list[Example] = []
        self.copies: list[Example] = []
        self.references: list[Example] = []
        self.validated: list[Example] = []
        self.held_out = False
        self.class_images: list[Example] = []
        self.noisy_copies: list[Example] = []
        self.found: list[list[ConceptBox]] = []
        self.boxes: list[list[ConceptBox]] = []
        self.captioner: Captioner | None = None
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}

    @property
    def shapes(self) -> list[Bucket]:
        """Sizes of the photographs that are trained on; as loaded while no stage has run."""
        return [size_of(each.image) for each in self.trained_on or self.given]

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:  # stages run again at each look
            log.warning(sentence)
            self.warnings.append(sentence)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
