"""Exponential moving average of what learns; looks, evaluation, export, the end of fit use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from shortcut_lightning.gathering import divided, gathered, in_first
from shortcut_lightning.ranges import InnerShare, Ranged


class EMA(Ranged, Callback):
    """Keeps averaged copies of the trained parameters alone (diffusers' EMAModel).

    Args:
        decay: Largest decay; early steps average less, by (1 + step) / (10 + step).
    """

    def __init__(self, decay: InnerShare = 0.999) -> None:
        self.decay = decay
        self._average: EMAModel | None = None
        self._stored: dict[str, Any] = {}
        self._last_step = 0
        # What training goes on from, while the model holds the averages: after training has ended,
        # and from loading a checkpoint until training starts.
        self._in_training: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._in_training = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            if callable(getattr(optimizer, "eval", None)):
                raise ValueError(
                    f"{type(optimizer).__name__} averages the weights itself; leave EMA out of "
                    "trainer.callbacks."
                )
        learned = [p for p in pl_module.parameters() if p.requires_grad]
        together = not any(isinstance(p, DTensor) for p in learned)  # parts cannot be copied so
        self._average = EMAModel(learned, decay=self.decay, foreach=together)
        if self._stored:
            kept = zip(self._stored["shadow_params"], learned, strict=True)
            parts = [divided(average, parameter) for average, parameter in kept]
            self._average.load_state_dict(self._stored | {"shadow_params": parts})
        # Where the weights are, which is not where they are used if they stay with the host.
        self._average.shadow_params = [
            average.to(parameter.device)
            for average, parameter in zip(self._average.shadow_params, learned, strict=True)
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step  # a checkpoint's steps are known only from here on
        # Not where the checkpoint was the last one: then nothing starts, and the averages that were
        # loaded are what is exported and evaluated.
        own = dict(pl_module.named_parameters())
        parts = {name: divided(value, own[name]) for name, value in self._in_training.items()}
        pl_module.load_state_dict(parts, strict=False)
        self._in_training = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._last_step:  # not after every accumulated batch
            self._last_step = trainer.global_step
            self.average.step(p for p in pl_module.parameters() if p.requires_grad)

    @contextmanager
    def looked_at(self, pl_module: LightningModule) -> Iterator[None]:
        """The averages, while the model is looked at in training."""
        self._swap_in(pl_module)
        try:
            yield
        finally:
            self._swap_out(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._average is not None and trainer.state.fn == "fit":
            self._swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._average is not None and trainer.state.fn == "fit":
            self._swap_out(pl_module)

    def _swap_in(self, pl_module: LightningModule) -> None:
        learned = [p for p in pl_module.parameters() if p.requires_grad]
        self.average.store(learned)
        self.average.copy_to(learned)

    def _swap_out(self, pl_module: LightningModule) -> None:
        self.average.restore(p for p in pl_module.parameters() if p.requires_grad)

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A checkpoint may still be written, after a stop between two others.
        self._in_training = {
            name: p.detach().clone() for name, p in pl_module.named_parameters() if p.requires_grad
        }
        self.average.copy_to(p for p in pl_module.parameters() if p.requires_grad)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The checkpoint's weights are the averaged ones, which is what `test` and others want;
        those that training goes on from are kept beside them."""
        if self._average is None:
            return
        learned = {n: p.detach() for n, p in pl_module.named_parameters() if p.requires_grad}
        checkpoint["weights_in_training"] = in_first(self._in_training or learned)
        averages = dict(zip(learned, self.average.shadow_params, strict=True))
        checkpoint["state_dict"] = checkpoint["state_dict"] | in_first(averages)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called when `fit` resumes, after the weights, which are the averages, were loaded."""
        self._in_training = dict(checkpoint.get("weights_in_training", {}))

    def state_dict(self) -> dict[str, Any]:
        if self._average is None:
            return self._stored
        state = self._average.state_dict()
        return state | {"shadow_params": [gathered(each) for each in state["shadow_params"]]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._stored = state_dict

    @property
    def average(self) -> EMAModel:
        assert self._average is not None, "the average exists from on_fit_start on"
        return self._average
