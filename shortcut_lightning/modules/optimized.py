"""How a module learns: AdamW by its own settings, or what was named in its place.

Schedule-free optimisers (arXiv 2405.15682) train at one point and are judged at another, an
average. So the average is what is looked at (validation, pictures), what a checkpoint has as its
weights, and what training ends with; the point in training is kept beside it, and training goes on
from there bit for bit.
"""

import inspect
import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.optim import Optimizer

from shortcut_lightning.modules.optimizers import (
    Group,
    Named,
    adam,
    named,
    refuse_rates,
    scheduled,
)

log = logging.getLogger(__name__)

_IN_TRAINING = "weights_in_training"  # as callbacks/ema.py names them


class Optimized(LightningModule, ABC):
    """A LightningModule with DreamBooth's settings of AdamW and of its schedule among its
    `hparams`, which `choose` replaces. A subclass has `parameter_groups`."""

    _optimizer: Named | None = None
    _schedule: Named | None = None
    _at_work = False  # whether training has begun, so that the optimiser has a point of its own
    _point: dict[str, Tensor] | None = None  # the weights in training, while others are in place

    @abstractmethod
    def parameter_groups(self) -> list[Group]:
        """What learns: groups with `params`, `lr` and `weight_decay`."""

    def choose(self, optimizer: Named | None = None, schedule: Named | None = None) -> None:
        """What learning is done with, in the place of the usual AdamW and schedule.

        Raises ValueError where 8-bit AdamW is asked for as well, and for settings that the
        optimiser or the schedule refuses.
        """
        own = self.hparams
        if optimizer and own["use_8bit_adam"]:
            raise ValueError(
                f"model.adam.eight_bit is true and optimizer is {optimizer.name}: give one of them."
            )
        self._optimizer, self._schedule = optimizer, schedule
        trial = self._new_optimizer(fused=False)  # or it would be refused after all the stages
        if schedule:
            schedule.tried(trial)
        if optimizer and own["adam_weight_decay"] != 1e-2:
            log.warning(
                "model.adam.weight_decay is of the usual AdamW; %s takes optimizer.weight_decay",
                optimizer.name,
            )
        if schedule and own["lr_scheduler"] != "constant":
            log.warning(
                "lr_scheduler %s stands in the place of model.lr_scheduler '%s'",
                schedule.name,
                own["lr_scheduler"],
            )

    def configure_optimizers(self) -> Any:
        optimizer = self._new_optimizer(fused=self.trainer.precision != "16-mixed")
        if self._schedule:
            return {"optimizer": optimizer, "lr_scheduler": scheduled(optimizer, self._schedule)}
        schedule = get_scheduler(
            self.hparams["lr_scheduler"],
            optimizer,
            num_warmup_steps=self.hparams["lr_warmup_steps"],
            num_training_steps=int(self.trainer.estimated_stepping_batches),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _new_optimizer(self, fused: bool) -> Optimizer:
        groups = self.parameter_groups()
        if self._optimizer:
            return named(groups, self._optimizer)
        return adam(
            groups,
            betas=(self.hparams["adam_beta1"], self.hparams["adam_beta2"]),
            eps=self.hparams["adam_epsilon"],
            eight_bit=self.hparams["use_8bit_adam"],
            fused=fused,
        )

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip under bf16 too: Lightning refuses to beside a fused optimizer whenever there is
        autocast, for the sake of fp16's scaled gradients, which bf16 has not."""
        if self.trainer.precision != "bf16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        Precision.clip_gradients(
            self.trainer.precision_plugin,
            optimizer,
            gradient_clip_val or 0.0,
            GradClipAlgorithmType(gradient_clip_algorithm or "norm"),
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lets the gradients go with the step: Lightning would keep them through the next forward
        pass, beside its activations, where memory peaks.

        Raises ValueError for parameters that the optimiser turns out not to take."""
        try:
            super().optimizer_step(*args, **kwargs)
        except RuntimeError as error:
            kind = type(self._optimizers[0])
            if traceback.extract_tb(error.__traceback__)[-1].filename != inspect.getfile(kind):
                raise
            said = " ".join(str(error).split())
            raise ValueError(f"optimizer: {kind.__name__} does not take these: {said}") from error
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        super().lr_scheduler_step(scheduler, metric)
        refuse_rates(self._optimizers, type(scheduler).__name__)

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """The weights that the optimiser would be judged by; the point in training is back
        afterwards. Nothing changes but with a schedule-free optimiser at work."""
        if not self._at_work or self._point is not None:
            yield
            return
        self._leave_point()
        try:
            yield
        finally:
            self._back_to_point()

    def on_train_start(self) -> None:
        averaging = _averaging(self._optimizers)
        for optimizer in averaging:
            optimizer.train()
        self._at_work = bool(averaging)
        if self._at_work and self._point is not None:  # of the checkpoint that is gone on from
            self.load_state_dict(self._point, strict=False)
        self._point = None

    def on_train_end(self) -> None:
        for optimizer in _averaging(self._optimizers):
            optimizer.eval()
        self._at_work = False

    def on_validation_start(self) -> None:
        if self._at_work:
            self._leave_point()

    def on_validation_end(self) -> None:
        if self._at_work:
            self._back_to_point()

    def add_point(self, checkpoint: dict[str, Any]) -> None:
        """The averages as the checkpoint's weights, the point in training beside them."""
        if not self._at_work:
            return
        state = checkpoint["state_dict"]
        with self.looked_at():
            checkpoint[_IN_TRAINING] = self._point
            averages = {name: p.detach().clone() for name, p in self._learning()}
        checkpoint["state_dict"] = state | averages

    def take_point(self, checkpoint: dict[str, Any]) -> None:
        """For `fit`: where training was, if the checkpoint says so."""
        if self._trainer is not None and self.trainer.state.fn == "fit":
            self._point = checkpoint.get(_IN_TRAINING)

    def _learning(self) -> list[tuple[str, Tensor]]:
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]

    def _leave_point(self) -> None:
        self._point = {name: p.detach().clone() for name, p in self._learning()}
        for optimizer in _averaging(self._optimizers):
            optimizer.eval()

    @torch.no_grad()
    def _back_to_point(self) -> None:
        """The optimiser computes its point from the average, up to rounding; the copy is exact."""
        point, self._point = self._point, None
        assert point is not None
        for optimizer in _averaging(self._optimizers):
            optimizer.train()
        for name, parameter in self._learning():
            parameter.copy_(point[name])

    @property
    def _optimizers(self) -> list[Any]:
        return list(self.trainer.optimizers)


def _averaging(optimizers: list[Any]) -> list[Any]:
    """Those that are switched between training and looking, as schedulefree's are."""
    return [o for o in optimizers if callable(getattr(o, "train", None)) and hasattr(o, "eval")]
