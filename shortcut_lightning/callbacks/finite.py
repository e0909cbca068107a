"""Training ends at the first loss or weight that is not a number, before anything is made of it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from shortcut_lightning.finite import NotFinite, all_finite


class StopAtNaN(Callback):
    """Raises `NotFinite` at the first loss that is NaN or infinite, and before any checkpoint,
    export or end of training with such weights; so the last checkpoint has finite ones. Belongs
    first among the callbacks.

    On the CPU every loss is looked at. Elsewhere looking waits for the device, so that it is done
    where losses are logged; which step was the first is kept on the device.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None  # step of the first bad loss, -1 for none
        self._folder: str | None = None  # of the run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = trainer.log_dir  # rank 0 tells the others, so each has to ask

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return
        bad = ~loss.detach().isfinite().all()
        if loss.device.type == "cpu" and trainer.world_size == 1:
            if bad:
                at = _at(trainer, trainer.global_step)
                raise NotFinite(f"{at}: the loss is {loss.item()}{self._advice(trainer)}")
            return
        if self._first is None:
            self._first = torch.full((), -1.0, device=loss.device)
        step = torch.full_like(self._first, trainer.global_step)
        self._first = torch.where(bad & (self._first < 0), step, self._first)
        every = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if trainer.global_step % every == 0:
            self._look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)
        self._refuse(trainer, (p for p in pl_module.parameters() if p.requires_grad))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Where training had ended before, there is no `on_train_end`.
        self._refuse(trainer, (p for p in pl_module.parameters() if p.requires_grad))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._refuse(trainer, checkpoint["state_dict"].values())

    def _look(self, trainer: Trainer) -> None:
        if self._first is None:
            return
        # All ranks stop where one has to.
        first = trainer.strategy.reduce(self._first, reduce_op="max").item()
        if first >= 0:
            at = _at(trainer, int(first))
            raise NotFinite(f"{at}: the loss is not a number{self._advice(trainer)}")

    def _refuse(self, trainer: Trainer, weights: Iterable[Tensor]) -> None:
        if not all_finite(each.detach() for each in weights):
            at = _at(trainer, trainer.global_step)
            raise NotFinite(f"{at}: weights are NaN or infinite{self._advice(trainer)}")

    def _advice(self, trainer: Trainer) -> str:
        kept = Path(self._folder or "") / "checkpoints" / "last.ckpt"
        last = kept if self._folder and kept.is_file() else trainer.ckpt_path
        advice = ["a lower learning rate"]
        if str(trainer.precision).startswith("16"):
            advice.append("trainer.precision bf16-mixed")
        if not trainer.gradient_clip_val:
            advice.append("trainer.gradient_clip_val 1.0")
        found = f"the last finite checkpoint is {last}" if last else "there is no checkpoint yet"
        return f". Try {' or '.join(advice)}. Nothing was exported; {found}."


def _at(trainer: Trainer, step: int) -> str:
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    rate = f", learning rate {max(rates):.4g}" if rates else ""
    return f"step {step}{rate}"
