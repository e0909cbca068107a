"""A picture of many samples: of the evaluation, and now and then during training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch import LightningModule, Trainer

from shortcut_lightning.callbacks.evaluation import EvaluationCallback, prompts_of
from shortcut_lightning.callbacks.loggers import log_pictures
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.callbacks.trainers import (
    fast_dev_run,
    looked_at,
    refuse_divided,
    run_folder,
)
from shortcut_lightning.files.images import write_png
from shortcut_lightning.ranges import Between, Count, CountOrNone, NotNegative, SamplingSteps, Seed
from shortcut_lightning.report.page import Section
from shortcut_lightning.report.pictures import Row, sheet


class SampleGrid(EvaluationCallback):
    """Writes `grid.png` of an evaluation, one row per prompt, and `grids/<step>.png` in training.

    Args:
        columns: Images of each model and prompt in the evaluation's grid.
        every_n_steps: Optimiser steps between grids of training; 0 draws none.
        prompts: What those show, one row each; `{instance}` and `{class}` as in
            `data.evaluation.prompts`, with a row for each subject of several.
        negative_prompt: Their negative prompt.
        seeds: Their columns; the same seeds each time, so that grids can be compared.
        num_inference_steps: Sampling steps.
        guidance_scale: Classifier-free guidance.
        side: Height and width of one image in the grid, in pixels.
    """

    def __init__(
        self,
        columns: Count = 4,
        every_n_steps: CountOrNone = 0,
        prompts: Sequence[str] = (),
        negative_prompt: str = "",
        seeds: Sequence[Seed] = (0, 1, 2, 3),
        num_inference_steps: SamplingSteps = 25,
        guidance_scale: NotNegative = 7.5,
        side: Annotated[int, Between(8)] = 128,
    ) -> None:
        if every_n_steps > 0 and not (prompts and seeds):
            raise ValueError(
                f"SampleGrid.every_n_steps is {every_n_steps}, but SampleGrid.prompts or "
                "SampleGrid.seeds is empty; give at least one of each, or every_n_steps: 0"
            )
        self.columns = columns
        self.every_n_steps = every_n_steps
        self.prompts = list(prompts)
        self.negative_prompt = negative_prompt
        self.seeds = list(seeds)
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.side = side
        self._drawn_at = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self.every_n_steps:
            refuse_divided(trainer, "SampleGrid.every_n_steps", "set it to 0")
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn_at = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        regular = self.every_n_steps > 0 and step % self.every_n_steps == 0
        # An accumulated batch leaves the step where it was: no second grid of the same weights.
        if fast_dev_run(trainer) or not regular or step == self._drawn_at:
            return
        self._drawn_at = step
        folder = run_folder(trainer) / "grids"
        if trainer.is_global_zero:
            with looked_at(trainer, pl_module):
                self._draw(trainer, pl_module, folder / f"{step:06d}.png")

    def show(self, samples: Mapping[str, Samples], trainer: Trainer, folder: Path) -> list[Section]:
        prompts = dict.fromkeys(prompt for arm in samples.values() for prompt in arm.prompts)
        rows = [
            Row(prompt, [_of_prompt(arm, prompt)[: self.columns] for arm in samples.values()])
            for prompt in prompts
        ]
        picture = sheet(rows, list(samples), self.side)
        write_png(picture, folder / "grid.png")
        log_pictures(trainer, "eval/grid", [picture], [", ".join(samples)])
        return []

    @torch.no_grad()
    def _draw(self, trainer: Trainer, pl_module: LightningModule, path: Path) -> None:
        backbone: Any = pl_module.backbone
        data: Any = getattr(trainer, "datamodule", None)
        subjects = list(getattr(data, "subjects", {"": data}).values())
        rows = []
        for prompt in dict.fromkeys(
            prompts_of(subject).evaluated(text) for text in self.prompts for subject in subjects
        ):
            with trainer.precision_plugin.forward_context():
                images = backbone.sample(
                    [prompt] * len(self.seeds),
                    seeds=self.seeds,
                    negative_prompts=self.negative_prompt,
                    num_inference_steps=self.num_inference_steps,
                    guidance_scale=self.guidance_scale,
                )
            rows.append(Row(prompt, [list(images.float().cpu())]))
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = sheet(rows, [f"step {trainer.global_step}"], self.side)
        write_png(picture, path)
        log_pictures(trainer, "train/grid", [picture], [f"step {trainer.global_step}"])


def _of_prompt(samples: Samples, prompt: str) -> list[torch.Tensor]:
    return [
        image for image, its in zip(samples.images, samples.prompts, strict=True) if its == prompt
    ]
