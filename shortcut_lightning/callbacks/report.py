"""Writes the report when a test has ended."""

from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks.evaluation import Evaluation
from shortcut_lightning.callbacks.protection import screen
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.callbacks.throughput import Throughput
from shortcut_lightning.callbacks.trainers import callbacks_of, fast_dev_run, run_folder
from shortcut_lightning.draws import run_seed
from shortcut_lightning.files.images import write_png
from shortcut_lightning.report import sections
from shortcut_lightning.report.curves import read_losses
from shortcut_lightning.report.page import Section
from shortcut_lightning.report.pictures import to_pil
from shortcut_lightning.report.summary import Report, installed_versions


class ReportWriter(Callback):
    """Gathers what the data module, `Evaluation` and `Throughput` know into `report.json` and
    `report.html` in the run folder. A part whose source is missing is left out. Beside them lies
    `photograph.png`: the first photograph as given, as published, and as learned from.

    Args:
        title: Heading of the page; empty takes the first instance prompt.
        protection: Say how many photographs look protected (`concepts/protection.py`).
    """

    def __init__(self, title: str = "", protection: bool = True) -> None:
        self.title = title
        self.protection = protection
        self.model = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes which weights the run begins with, before a checkpoint is restored."""
        backbone = getattr(pl_module, "backbone", None)
        if isinstance(backbone, Backbone) and not self.model and trainer.is_global_zero:
            name = pl_module.hparams.get("pretrained_model_name_or_path", "")
            self.model = f"{Path(name).name} {backbone.fingerprint()}".strip()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        if not trainer.is_global_zero or fast_dev_run(trainer):
            return
        for logger in trainer.loggers:
            logger.save()  # metrics.csv is written now and then, and read below
        self._report(trainer, folder).write(folder)
        _keep_photograph(getattr(trainer, "datamodule", None), folder / "photograph.png")

    def _report(self, trainer: Trainer, folder: Path) -> Report:
        data: Any = getattr(trainer, "datamodule", None)
        evaluation = next(iter(callbacks_of(trainer, Evaluation)), Evaluation())
        throughput = next(iter(callbacks_of(trainer, Throughput)), Throughput())
        given: list[Example] = getattr(data, "given", [])
        config = folder / "config.yaml"
        metrics = {name: e._asdict() for name, e in evaluation.estimates.items()}
        text = config.read_text(encoding="utf-8") if config.exists() else ""
        seconds = {**getattr(data, "seconds", {}), **throughput.seconds, **evaluation.seconds}
        versions = installed_versions()
        backbone = getattr(trainer.lightning_module, "backbone", None)
        remarks = backbone.remarks if isinstance(backbone, Backbone) else []
        warnings = [*getattr(data, "warnings", []), *evaluation.warnings, *remarks]
        screened = screen(data) if self.protection else None
        buckets = {str(size): count for size, count in getattr(data, "buckets", {}).items()}
        said = [sections.in_buckets(buckets)] if buckets else []
        if copies := len(getattr(data, "copies", [])):
            said.append(f"{copies} further copies of them are learnt beside them.")
        remark = " ".join([*said, screened.told()] if screened else said)
        return Report(
            title=self.title or (given[0].prompt if given else "Untitled run"),
            created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            seed=run_seed(),
            model=self.model,
            metrics=metrics,
            extractors=evaluation.extractors,
            counts=_counts(data, evaluation.samples),
            seconds=seconds,
            throughput=throughput.speed,
            warnings=warnings,
            protection=screened.as_json() if screened else {},
            config=text,
            versions=versions,
            buckets=buckets,
            sections=[
                *_photographs(given, getattr(data, "trained_on", given), remark),
                *([sections.generated(_prompts(evaluation.samples))] if evaluation.samples else []),
                *([sections.metrics(metrics, evaluation.extractors)] if metrics else []),
                *([sections.cautions(warnings)] if warnings else []),
                *evaluation.sections,
                *_training(folder),
                *([sections.seconds(seconds)] if seconds else []),
                sections.setup(text, versions),
            ],
        )


def _keep_photograph(data: Any, path: Path) -> None:
    stages = [getattr(data, name, []) for name in ("given", "published", "trained_on")]
    first = [stage[0].image for stage in stages if stage]
    if len(first) == len(stages) and len({image.shape for image in first}) == 1:
        write_png(to_pil(torch.cat(first, 2)), path)


def _counts(data: Any, samples: dict[str, Samples]) -> dict[str, int]:
    kinds = {
        "instance images": "given",
        "reference images": "references",
        "class images": "class_images",
        "noisy class images": "noisy_copies",
    }
    counts = {kind: len(getattr(data, attribute, [])) for kind, attribute in kinds.items()}
    return {**counts, **{f"{arm} images": len(of_arm) for arm, of_arm in samples.items()}}


def _photographs(given: list[Example], trained_on: list[Example], remark: str) -> list[Section]:
    left = {after.name: after for after in trained_on}  # some may have been dropped
    pairs = [
        sections.Photograph(before.name, before.image, left[before.name].image)
        for before in given
        if before.name in left
    ]
    return [sections.photographs(pairs, remark)] if pairs else []


def _prompts(samples: dict[str, Samples]) -> list[sections.Generated]:
    by_prompt: dict[str, sections.Generated] = {}
    for arm, of_arm in samples.items():
        for prompt, image in zip(of_arm.prompts, of_arm.images, strict=True):
            row = by_prompt.setdefault(prompt, sections.Generated(prompt, {}))
            row.arms.setdefault(arm, []).append(image)
    return list(by_prompt.values())


def _training(folder: Path) -> list[Section]:
    losses = read_losses(folder / "metrics.csv")
    return [sections.training(losses)] if losses else []
