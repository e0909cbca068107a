"""A look at the model while it trains: pictures of the evaluation's prompts, and what is measured
of them; the best kept, an end where nothing gets better, and both when asked for from outside."""

import logging
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from shortcut_lightning.callbacks import samples as sampled
from shortcut_lightning.callbacks.evaluation import EvaluationCallback, measured
from shortcut_lightning.callbacks.loggers import log_numbers, log_pictures
from shortcut_lightning.callbacks.samples import Sample, Samples
from shortcut_lightning.callbacks.trainers import (
    callbacks_of,
    divided,
    fast_dev_run,
    looked_at,
    refuse_divided,
    run_folder,
)
from shortcut_lightning.files.cache import together
from shortcut_lightning.ranges import Count, CountOrNone, Ranged
from shortcut_lightning.report.pictures import Row, sheet

log = logging.getLogger(__name__)

LOOK, STOP = "look", "stop"  # files in the run folder that ask for them
_EVERY = 10  # steps between two questions whether a file is there, where ranks have to agree


class Look(Ranged, Callback):
    """Every few steps `looks/<step>.png` in the run folder and W&B, with the same seeds each time;
    numbers as `look/<metric>` in metrics.csv and W&B.

    A file `look` in the run folder, or SIGUSR1, asks for one after the step; a file `stop` ends the
    training after the step as if it had come to its end, with export and evaluation.

    Args:
        every_n_steps: Optimiser steps between looks; 0 for those that are asked for alone.
        columns: Pictures of each of `data.evaluation.prompts`, at most `images_per_prompt`.
        measure: Have them measured by the callbacks that measure the evaluation.
        best: A metric, such as `identity`: where a look finds the best so far,
            checkpoints/best.ckpt is written.
        higher: Whether more of it is better.
        patience: End the training after so many looks in a row without a new best; 0 never.
    """

    def __init__(
        self,
        every_n_steps: CountOrNone = 0,
        columns: Count = 2,
        measure: bool = False,
        best: str = "",
        higher: bool = True,
        patience: CountOrNone = 0,
    ) -> None:
        if patience and not best:
            raise ValueError(
                f"Look.patience is {patience}, but Look.best names no metric to get better; such as"
                " identity."
            )
        if best and not every_n_steps:
            raise ValueError("Look.best needs looks to compare: set Look.every_n_steps.")
        self.every_n_steps, self.columns = every_n_steps, columns
        self.measure, self.best, self.higher = measure, best, higher
        self.patience = patience
        self._record: float | None = None
        self._since = 0  # looks since then
        self._looked_at = -1
        self._signalled = False
        self._before: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self.every_n_steps:
            refuse_divided(trainer, "Look.every_n_steps", "set it to 0")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._looked_at = trainer.global_step
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            self._before = signal.signal(signal.SIGUSR1, self._signal)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if fast_dev_run(trainer) or step == self._looked_at:  # the same weights, accumulating
            return
        regular = bool(self.every_n_steps) and step % self.every_n_steps == 0
        look, stop = self._asked(trainer)
        if look and divided(trainer):
            name = type(trainer.strategy).__name__
            log.warning("A look was asked for, but under %s there is none while it trains.", name)
            look = False
        elif look:
            log.warning("A look was asked for; step %d is looked at.", step)
        if look or regular:
            self._looked_at = step
            self._look(trainer, pl_module)
        if stop:
            log.warning("An end was asked for; training ends with step %d.", step)
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen_no_more()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._listen_no_more()

    def state_dict(self) -> dict[str, Any]:
        return {"record": self._record, "since": self._since} if self.best else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._record, self._since = state_dict.get("record"), state_dict.get("since", 0)

    def _signal(self, *_: Any) -> None:
        self._signalled = True

    def _listen_no_more(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGUSR1, self._before)
            self._before = None

    def _asked(self, trainer: Trainer) -> tuple[bool, bool]:
        """What is asked for from outside, the same on every rank; the files are taken away."""
        if trainer.world_size > 1 and trainer.global_step % _EVERY:
            return False, False
        asked = [self._signalled, False]
        self._signalled = False
        folder = trainer.log_dir  # each rank asks: rank 0 tells the others
        if trainer.is_global_zero and folder:
            for number, name in enumerate((LOOK, STOP)):
                file = Path(folder) / name
                if file.is_file():
                    file.unlink(missing_ok=True)
                    asked[number] = True
        look, stop = trainer.strategy.broadcast(asked) if trainer.world_size > 1 else asked
        return look, stop

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        numbers: dict[str, float] = {}

        def show(taken: list[Sample]) -> None:
            samples = sampled.merge(taken, pl_module.device).get("tuned")
            if samples is None:
                log.warning("There is nothing to look at: data has no prompts for the evaluation.")
                return
            self._write(trainer, samples, folder / "looks")
            if self.measure or self.best:
                numbers.update(self._measured(trainer, samples))

        # Some measures sample the model once more, so it stays as it is judged.
        with looked_at(trainer, pl_module):
            taken = sampled.gather(self._sample(trainer, pl_module), trainer.world_size)
            together(lambda: show(taken), trainer.strategy)
        if trainer.world_size > 1:
            numbers = trainer.strategy.broadcast(numbers)
        log_numbers(trainer, pl_module, {f"look/{name}": value for name, value in numbers.items()})
        if self.best:
            self._compare(trainer, numbers, folder)

    @torch.no_grad()
    def _sample(self, trainer: Trainer, pl_module: Any) -> list[Sample]:
        """This rank's share of the evaluation's tuned pictures, the first of each prompt."""
        data: Any = getattr(trainer, "datamodule", None)
        loader = data.test_dataloader() if hasattr(data, "eval_prompts") else ()
        made: list[Sample] = []
        per_prompt = data.evaluation.images_per_prompt if loader else 1
        with trainer.precision_plugin.forward_context():
            for batch in loader:
                rows = [
                    n for n, i in enumerate(batch.ids.tolist()) if i % per_prompt < self.columns
                ]
                if batch.arm != "tuned" or not rows:
                    continue
                part = batch._replace(
                    prompts=[batch.prompts[n] for n in rows],
                    negative_prompts=[batch.negative_prompts[n] for n in rows],
                    seeds=batch.seeds[rows],
                    ids=batch.ids[rows],
                    texts=[batch.texts[n] for n in rows] if batch.texts else (),
                )
                made += sampled.from_batch(part, pl_module.sample(part))
        return made

    def _write(self, trainer: Trainer, samples: Samples, folder: Path) -> None:
        prompts = list(dict.fromkeys(samples.prompts))
        pairs = list(zip(samples.images, samples.prompts, strict=True))
        rows = [Row(prompt, [[each for each, its in pairs if its == prompt]]) for prompt in prompts]
        picture = sheet(rows, [f"step {trainer.global_step}"])
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{trainer.global_step:06d}.png")
        log_pictures(trainer, "look/pictures", [picture], [f"step {trainer.global_step}"])

    def _measured(self, trainer: Trainer, samples: Samples) -> dict[str, float]:
        data: Any = getattr(trainer, "datamodule", None)
        numbers: dict[str, float] = {}
        for callback in callbacks_of(trainer, EvaluationCallback):
            for of_whom, found in measured(callback, samples, data):
                for name, estimate in found.items():
                    numbers.setdefault(f"{name}{of_whom}", estimate.value)
        if self.best and self.best not in numbers:
            raise ValueError(
                f"Look.best is '{self.best}', which no callback measures; there are: "
                f"{', '.join(sorted(numbers)) or 'none, add IdentityMatch or another'}."
            )
        return numbers

    def _compare(self, trainer: Trainer, numbers: dict[str, float], folder: Path) -> None:
        """Keeps the best, on every rank alike; nothing is the best that is no number."""
        value, record = numbers.get(self.best, float("nan")), self._record
        better = record is None or (value > record if self.higher else value < record)
        if value == value and better:
            self._record, self._since = value, 0
            trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=False)
            log.info("%s is %.4g, the best so far; kept in checkpoints/best.ckpt", self.best, value)
            return
        self._since += 1
        if self.patience and self._since >= self.patience:
            log.warning(
                "%s has not been better than %s for %d looks; training ends with step %d.",
                self.best,
                "nothing" if record is None else f"{record:.4g}",
                self._since,
                trainer.global_step,
            )
            trainer.should_stop = True
