"""How fast training goes, and how long it took."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.ranges import CountOrNone, Ranged


class Throughput(Ranged, Callback):
    """Seconds of training, steps and images per second, and peak memory, for the report.

    The first steps of a run are slower (compilation, caches, memory pools): `warm_up_steps` of them
    count as time but not for the speed.

    Args:
        warm_up_steps: Optimiser steps left out of the speed.
    """

    def __init__(self, warm_up_steps: CountOrNone = 3) -> None:
        self.warm_up_steps = warm_up_steps
        self.seconds: dict[str, float] = {}
        self.speed: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        self._first_step = trainer.global_step
        self._measured_from: tuple[float, int] | None = None
        self._images = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._measured_from is not None:
            self._images += len(batch.prompts) if isinstance(batch, TrainBatch) else 0
        elif trainer.global_step - self._first_step >= self.warm_up_steps:
            self._measured_from = (time.perf_counter(), trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.perf_counter()
        self.seconds = {"train": now - self._started}
        self.speed = {"GiB peak memory": _peak_memory()}
        if self._measured_from is not None and trainer.global_step > self._measured_from[1]:
            spent = now - self._measured_from[0]
            steps = trainer.global_step - self._measured_from[1]
            self.speed["steps/s"] = steps / spent
            if self._images:
                self.speed["images/s"] = self._images * trainer.world_size / spent


def _peak_memory() -> float:
    """GiB: of the accelerator where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
