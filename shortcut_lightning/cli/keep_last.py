"""When `fit` keeps where it stands, and how the file is written."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from shortcut_lightning import stopping
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.ranges import Count, Positive, Ranged

LAST = "checkpoints/last.ckpt"  # in the run folder
_SHARE = 20  # saving by time may take about one part in so many of it


class KeepLast(Ranged, Checkpoint):
    """Keeps checkpoints/last.ckpt: every `every_n_train_steps` steps, every few minutes, after the
    last step, and where training is told to stop by SIGINT or SIGTERM.

    Lightning's `save_last` misses the steps after the last interval. And what is saved when an
    epoch or the training ends, not a batch, resumes with a batch too many (lightning 2.6.6). So a
    signal waits for the end of the batch, on every rank the same one.

    Args:
        every_n_train_steps: Steps between two.
        minutes: Time between two; more where writing takes long.
        regular: False for a run with checkpoints of its own, where only a stop is kept.
    """

    def __init__(
        self, every_n_train_steps: Count = 500, minutes: Positive = 5.0, regular: bool = True
    ) -> None:
        self.every_n_train_steps = every_n_train_steps
        self.minutes = minutes
        self.regular = regular
        self._saved_step = self._seen_step = 0
        self._due = 0.0
        self._holding = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = self._seen_step = (
            trainer.global_step
        )  # of a resumed run: its checkpoint is there
        self._due = time.monotonic() + 60 * self.minutes
        self._holding = True
        stopping.hold()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = trainer.global_step != self._seen_step
        self._seen_step = trainer.global_step
        if trainer.accumulate_grad_batches > 1 and not stepped:
            return  # gradients that wait for their step are in no checkpoint
        number, due = _told(trainer, self.regular and time.monotonic() >= self._due)
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        ending = trainer.global_step == trainer.max_steps or (last_epoch and trainer.is_last_batch)
        regular = ending or due or trainer.global_step % self.every_n_train_steps == 0
        if number or (self.regular and regular):
            self._save(trainer)
        if number:
            self._let_go()
            raise stopping.Stopped(number)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.regular:
            self._save(trainer)  # stopped early, by time or by another callback
        self._let_go()
        stopping.end_if_asked()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where training had ended in another run, its checkpoint is this one's."""
        last = Path(trainer.log_dir or "") / LAST
        ended = trainer.ckpt_path
        here = self.regular and trainer.log_dir and trainer.is_global_zero
        if here and ended and Path(ended).is_file() and not last.exists():
            last.parent.mkdir(parents=True, exist_ok=True)
            with atomic(last) as half:
                try:
                    os.link(ended, half)  # never written to, only replaced
                except OSError:  # on another disk
                    shutil.copyfile(ended, half)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._holding:
            self._holding = False
            stopping.release()

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved_step and trainer.log_dir:
            start = time.monotonic()
            self._saved_step = trainer.global_step
            trainer.save_checkpoint(Path(trainer.log_dir) / LAST, weights_only=False)
            end = time.monotonic()
            self._due = end + max(60 * self.minutes, _SHARE * (end - start))


def _told(trainer: Trainer, due: bool) -> tuple[int, bool]:
    """The signal that came to any rank, or 0, and whether the first rank finds a save due; the same
    on all of them. Lightning waits for the ranks at every batch as well, for the same reason."""
    if trainer.world_size == 1:
        return stopping.asked(), due
    own = [stopping.asked(), int(due and trainer.is_global_zero)]
    told = torch.tensor(own, device=trainer.strategy.root_device, dtype=torch.float32)
    number, any_due = trainer.strategy.reduce(told, reduce_op="max").tolist()
    return int(number), bool(any_due)


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then moves it there, so that a kill leaves the one
    before. Lightning's way takes a copy in memory and leaves one in the folder of temporary files.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        if "://" in os.fspath(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # An open file: a path's name would become a part of the file's bytes.
            with atomic(place) as half, half.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
            raise ValueError(
                f"Cannot write {place} ({reason}); free some space, or give another --output_dir. "
                "What was there before is kept."
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """By the device's name: Lightning's function means the same, and tensors that wrap others,
        such as torchao's moments of 8 bits, do not take one."""
        return super().load_checkpoint(path, map_location, weights_only)
