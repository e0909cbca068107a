"""Evaluation samples once; every metric looks at the same images.

`Evaluation` collects what `test_step` returns, brings it together over the ranks, saves it, and
hands one `Samples` per arm to each `EvaluationCallback` of the trainer, in their order. The numbers
are made on the first rank and sent to the others, so that they are equal everywhere.
"""

import csv
import logging
import time
from abc import ABC
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from shortcut_lightning.batch import Example, PromptBatch
from shortcut_lightning.callbacks import samples as sampled
from shortcut_lightning.callbacks.loggers import log_pictures, log_table
from shortcut_lightning.callbacks.samples import Sample, Samples
from shortcut_lightning.callbacks.trainers import callbacks_of, fast_dev_run, run_folder
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.cache import together
from shortcut_lightning.metrics.estimate import FEW, Estimate, mean_estimate
from shortcut_lightning.prompts import Prompts
from shortcut_lightning.ranges import CountOrNone, Ranged
from shortcut_lightning.report.page import Section
from shortcut_lightning.report.pictures import to_pil

log = logging.getLogger(__name__)

PREFIXES = {"tuned": "eval", "base": "base"}
BY_PICTURE = "by_picture.csv"  # in the run folder: metric, image, value


class SubjectData(Protocol):
    """What a metric may ask of the data module."""

    given: list[Example]  # instance images before any stage
    references: list[Example]  # held-out photographs of the subject; `given` where there are none
    held_out: bool  # whether the references are others than `given`


def by_subject(
    samples: Samples, datamodule: Any
) -> Iterator[tuple[str, Samples, SubjectData | None]]:
    """What is measured by itself: all images, or those of each subject of `SeveralSubjects`, with
    what follows the names of its metrics."""
    subjects = getattr(datamodule, "subjects", {})
    if not subjects:
        yield "", samples, datamodule
    for name, data in subjects.items():
        yield f"@{name}", samples.of(datamodule.sampled_ids[name]), data


# What a prompt is about where the data do not say: the defaults of every callback.
_USUAL = Prompts("a photo of sks person", "a photo of a person")


def prompts_of(datamodule: Any) -> Prompts:
    """Those of a subject's data, which fill the prompts that a callback was given."""
    prompts = getattr(datamodule, "prompts", None)
    return prompts if isinstance(prompts, Prompts) else _USUAL


class EvaluationCallback(Ranged, Callback, ABC):
    """A look at the images of an evaluation. Subclasses write some of the methods.

    All are called on the first rank only, so they must not wait for other ranks.
    """

    extractor: str = ""  # name of the network behind the numbers, for the report
    of_whom: str = ""  # "@<subject>" while one of several is measured; `show` is for all of them
    by_picture: Mapping[str, Tensor] = {}  # what the last `measure` found of single images

    def means(self, **values: Tensor) -> dict[str, Estimate]:
        """Means of a number for each image, (N,), which are kept for pairing images of two runs."""
        self.by_picture = {**self.by_picture, **values}
        return {name: mean_estimate(each) for name, each in values.items()}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage in ("fit", "test"):
            together(self.load, trainer.strategy)

    def load(self) -> None:
        """Loads what measuring takes, or says why it cannot, before hours of training."""

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        """Numbers of one arm by bare name, such as `clip_t`; the arm's prefix is added."""
        return {}

    def warnings(self) -> list[str]:
        """Sentences about what was just measured that a reader of the numbers must know."""
        return []

    def show(self, samples: Mapping[str, Samples], trainer: Trainer, folder: Path) -> list[Section]:
        """Writes pictures of all arms to the run folder; returns sections for the report."""
        return []


def measured(
    callback: EvaluationCallback, samples: Samples, datamodule: Any
) -> Iterator[tuple[str, dict[str, Estimate]]]:
    """What a callback says of all images, or of each subject's by themselves, behind what follows
    the names of its metrics."""
    for of_whom, some, data in by_subject(samples, datamodule):
        callback.of_whom, callback.by_picture = of_whom, {}
        yield of_whom, callback.measure(some, data)


class Evaluation(Ranged, Callback):
    """Collects, gathers and saves the sampled images, and has them measured.

    After a test, `samples` (first rank only), `estimates`, `extractors`, `warnings`, `sections` and
    `seconds` hold what the report needs.

    Args:
        max_logged_images: Images of each arm that are sent to W&B.
    """

    def __init__(self, max_logged_images: CountOrNone = 32) -> None:
        self.max_logged_images = max_logged_images
        self._reset()

    def _reset(self) -> None:
        self._own: list[Sample] = []
        self._by_picture: dict[str, Tensor] = {}
        self.samples: dict[str, Samples] = {}
        self.estimates: dict[str, Estimate] = {}
        self.extractors: dict[str, str] = {}
        self.warnings: list[str] = []
        self.sections: list[Section] = []
        self.seconds: dict[str, float] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()
        self._started = time.perf_counter()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if isinstance(batch, PromptBatch) and isinstance(outputs, Tensor):
            self._own += sampled.from_batch(batch, outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds["sample"] = time.perf_counter() - self._started
        folder = run_folder(trainer)
        collected = sampled.gather(self._own, trainer.world_size)
        self._own = []

        def evaluate() -> None:
            self.samples = sampled.merge(collected, pl_module.device)
            self._evaluate(trainer, folder)

        together(evaluate, trainer.strategy)
        self.estimates = trainer.strategy.broadcast(self.estimates)
        # On the device: NCCL reduces nothing that lies on the CPU.
        values = {
            name: torch.tensor(e.value, device=pl_module.device)
            for name, e in self.estimates.items()
        }
        pl_module.log_dict(values, rank_zero_only=False, sync_dist=trainer.world_size > 1)

    def _evaluate(self, trainer: Trainer, folder: Path) -> None:
        if not self.samples:
            self._warn("Nothing was measured: no test_step returned images for a PromptBatch.")
        for arm, samples in self.samples.items():
            if not fast_dev_run(trainer):
                sampled.save(samples, folder / "samples" / arm)
            self._log_samples(trainer, samples)
        for callback in callbacks_of(trainer, EvaluationCallback):
            started = time.perf_counter()
            for samples in self.samples.values():
                self._measure(callback, samples, trainer)
            if self.samples and not fast_dev_run(trainer):
                self.sections += callback.show(self.samples, trainer, folder)
            self.seconds[type(callback).__name__] = time.perf_counter() - started
        if self._by_picture and not fast_dev_run(trainer):
            self._write_by_picture(folder / BY_PICTURE)
        self._warn_of_few()
        rows = [(name, *estimate) for name, estimate in self.estimates.items()]
        log_table(trainer, "eval/metrics", ["metric", *Estimate._fields], rows)

    def _measure(self, callback: EvaluationCallback, samples: Samples, trainer: Trainer) -> None:
        prefix = PREFIXES.get(samples.arm, samples.arm)
        datamodule: Any = getattr(trainer, "datamodule", None)
        for of_whom, numbers in measured(callback, samples, datamodule):
            for name, estimate in numbers.items():
                key = f"{prefix}/{name}{of_whom}"
                if key in self.estimates:  # the same metric a second time, with another network
                    key = f"{key}_{callback.extractor}"
                self.estimates[key] = estimate
                self.extractors[key] = callback.extractor
                if name in callback.by_picture:
                    self._by_picture[key] = callback.by_picture[name]
            for sentence in callback.warnings():
                self._warn(sentence)

    def _write_by_picture(self, path: Path) -> None:
        """Images are numbered in the order of their prompts, as in every run of these prompts."""
        with atomic(path) as half, half.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["metric", "image", "value"])
            for name, values in self._by_picture.items():
                writer.writerows((name, n, value) for n, value in enumerate(values.tolist()))

    def _warn_of_few(self) -> None:
        few = {name: e.n for name, e in self.estimates.items() if 0 < e.n < FEW}
        if few:
            sizes = ", ".join(f"{name} ({n})" for name, n in few.items())
            self._warn(
                f"Fewer than {FEW} images behind {sizes}: the intervals are much too narrow. "
                "Sample more images per prompt, or give more references."
            )

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)
            log.warning(sentence)

    def _log_samples(self, trainer: Trainer, samples: Samples) -> None:
        shown = samples.images[: self.max_logged_images]
        captions = samples.prompts[: len(shown)]
        if len(shown):
            pictures = [to_pil(image) for image in shown]
            log_pictures(trainer, f"samples/{samples.arm}", pictures, captions)
