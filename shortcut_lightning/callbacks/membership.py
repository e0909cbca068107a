"""How much a model gives away about its training images, while it learns them."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from shortcut_lightning.audit.evaluator import Features
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks.evaluation import EvaluationCallback
from shortcut_lightning.callbacks.loggers import log_numbers
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.callbacks.trainers import (
    fast_dev_run,
    looked_at,
    refuse_divided,
    run_folder,
)
from shortcut_lightning.draws import run_seed
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.cache import together
from shortcut_lightning.membership.clid import CLiD, Discrepancy, two_features
from shortcut_lightning.membership.engine import Engine
from shortcut_lightning.membership.pictures import Picture, picture, read_pictures
from shortcut_lightning.membership.reducers import NullOnly
from shortcut_lightning.membership.roc import auc, null_error, tpr_member
from shortcut_lightning.ranges import Count
from shortcut_lightning.report import plots
from shortcut_lightning.report.curves import Curve
from shortcut_lightning.report.page import Section

FORMS: tuple[Discrepancy, Discrepancy] = ("difference", "log_ratio")
CURVES = {
    "conditional discrepancy": "auc",
    "the same as a log-ratio": "auc_log_ratio",
    "loss": "auc_loss",
}


class Membership(EvaluationCallback):
    """Logs, over the steps of `fit`, how well members are told from hold-outs.

    There is no shadow model here, so nothing is tuned: `audit/auc` is that of CLiD's mean
    discrepancy alone, `audit/auc_log_ratio` that of the same as a log-ratio of losses,
    `audit/auc_loss` that of the loss alone. All are differences to the model before its first step,
    which cannot know the members; `audit/auc_before` is the discrepancy's AUC on it and should be
    near one half. Where the callback was added to a run that goes on, that model is not at hand and
    they are of the model as it is. Writes `membership.csv`; the verb `audit` says more.

    Args:
        members: Folder of captioned images; empty for those that are trained on.
        nonmembers: Folder of captioned images; empty for the data module's references.
        every_n_steps: Optimiser steps between measurements.
        score: Which queries are made.
        batch_size: Rows of one call of the denoiser.
    """

    def __init__(
        self,
        members: str = "",
        nonmembers: str = "",
        every_n_steps: Count = 50,
        score: CLiD = CLiD(NullOnly()),  # noqa: B008
        batch_size: Count = 64,
    ) -> None:
        self.members = members
        self.nonmembers = nonmembers
        self.every_n_steps = every_n_steps
        self.score = score
        self.batch_size = batch_size
        self._sets: list[list[Picture]] = []
        self._before: Features | None = None
        self._rows: list[dict[str, float]] = []
        self._measured_at = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            refuse_divided(trainer, "Membership", "leave it out of trainer.callbacks")
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if fast_dev_run(trainer):
            return
        backbone = pl_module.backbone
        assert isinstance(backbone, Backbone)
        self._sets = self._read(trainer, backbone.resolution)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measured_at = trainer.global_step

        def measure() -> None:
            if self._before is None:
                self._before = self._features(pl_module)

        # Not in `on_fit_start`: a resumed run has its weights by then, but counts no steps yet.
        if trainer.global_step == 0 and not fast_dev_run(trainer):
            together(measure, trainer.strategy)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if fast_dev_run(trainer) or step % self.every_n_steps or step == self._measured_at:
            return
        self._measured_at = step
        numbers: dict[str, float] = {}
        with looked_at(trainer, pl_module):
            together(lambda: numbers.update(self._numbers(pl_module)), trainer.strategy)
        numbers = trainer.strategy.broadcast(numbers)
        self._rows.append({"step": step, **numbers})
        log_numbers(trainer, pl_module, {f"audit/{name}": value for name, value in numbers.items()})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        if not self._rows or not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / "membership.csv") as half, half.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self._rows[-1]))
            writer.writeheader()
            writer.writerows(self._rows)

    def show(self, samples: Mapping[str, Samples], trainer: Trainer, folder: Path) -> list[Section]:
        """The curve, in the report of the run that was just trained."""
        if not self._rows:
            return []
        curves = [
            Curve(title, [(row["step"], row[name]) for row in self._rows])
            for title, name in CURVES.items()
        ]
        inside, outside = (len(each) for each in self._sets)
        against = "against the model before training"
        if not self._before:
            against = "of this model alone, since it was not measured before its first step"
        lead = (
            f"AUC of {inside} members against {outside} hold-outs, {against}; chance alone stays "
            f"within 0.5 ± {2 * null_error(inside, outside):.2f}."
        )
        return [Section("Membership", plots.lines(curves, "optimiser steps"), lead)]

    def state_dict(self) -> dict[str, Any]:
        before = None if self._before is None else [rows.tolist() for rows in self._before]
        return {"before": before, "rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["before"] is not None:
            self._before = Features(*(np.array(rows) for rows in state_dict["before"]))
        self._rows = state_dict["rows"]

    def _read(self, trainer: Trainer, resolution: int) -> list[list[Picture]]:
        data: Any = getattr(trainer, "datamodule", None)
        # The former are in buckets where the members are.
        unseen = "validated" if hasattr(data, "validated") else "references"
        sets = []
        for folder, key, attribute in (
            (self.members, "members", "trained_on"),
            (self.nonmembers, "nonmembers", unseen),
        ):
            if folder:
                sets.append(read_pictures(Path(folder), key, resolution)[0])
                continue
            examples: list[Example] = getattr(data, attribute, [])
            sets.append([picture(e.name, e.prompt, e.image.cpu(), resolution) for e in examples])
        keys = {each.key for each in sets[0]}
        # Without a folder of references the data module gives the training images themselves, which
        # a stage may have changed in `trained_on`.
        held_out = self.nonmembers or getattr(data, "held_out", True)
        sets[1] = [each for each in sets[1] if held_out and each.key not in keys]
        if min(map(len, sets)) < 2:
            raise ValueError(
                f"Membership has {len(sets[0])} members and {len(sets[1])} hold-outs that are not "
                "among them; at least two of each are needed. Give Membership.nonmembers or "
                "data.reference_data_dir."
            )
        return sets

    def _features(self, pl_module: LightningModule) -> Features:
        """(N, 3) of both sets: minus the loss, the mean discrepancy, and that as a log-ratio."""
        engine = Engine(
            {"model": pl_module.backbone},  # type: ignore[dict-item]
            seed=run_seed(),
            batch_size=self.batch_size,
            progress=False,
        )
        everything = [each for pictures in self._sets for each in pictures]
        engine.measure(everything, {"CLiD": self.score}, ["model"])
        rows = engine.rows("CLiD", "model")
        found = []
        for pictures in self._sets:
            measured = np.stack([rows[each.row] for each in pictures])
            plain, ratio = (two_features(measured, form) for form in FORMS)
            found.append(np.concatenate([plain, ratio[:, 1:]], 1))
        return Features(*found)

    @torch.no_grad()
    def _numbers(self, pl_module: LightningModule) -> dict[str, float]:
        now = self._features(pl_module)
        change = now.minus(self._before) if self._before else now
        loss, gap, ratio = (Features(*(rows[:, i] for rows in change)) for i in (0, 1, 2))
        numbers = {
            "auc": auc(*gap),
            "auc_log_ratio": auc(*ratio),
            "auc_loss": auc(*loss),
            "tpr_member_at_10fpr": tpr_member(*gap, 0.1),
        }
        if self._before:
            numbers["auc_before"] = auc(*(rows[:, 1] for rows in self._before))
        return numbers
