"""The bar of a training: steps of steps, those of a resumed run counted, numbers one can read."""

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class StepBar(TQDMProgressBar):
    """Lightning's bar with one line for the whole training instead of one for each epoch, which
    means nothing where four pictures are an epoch."""

    def init_train_tqdm(self) -> Tqdm:
        """A bar over optimiser steps."""
        trainer = self.trainer
        total = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
        return Tqdm(
            desc="Training",
            unit="step",
            total=None if total == float("inf") else int(total),
            initial=trainer.global_step,
            position=2 * self.process_position,
            disable=self.is_disabled,
            leave=True,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Epochs begin no bar."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Moves to the step that was done."""
        bar, step = self.train_progress_bar, trainer.global_step
        if bar.disable or step <= bar.n:
            return
        if step % self.refresh_rate == 0 or step == bar.total:
            bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)
            bar.update(step - bar.n)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Losses with four digits, by their last name; no version of the run."""
        found = super().get_metrics(trainer, pl_module)
        return {
            name.removeprefix("train/"): f"{value:.4g}" if isinstance(value, float) else value
            for name, value in found.items()
            if name != "v_num"
        }
