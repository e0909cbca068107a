"""Resuming: which checkpoint is meant, and that the configuration wins over it."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from shortcut_lightning.cli.checkpoints import check_optimizers
from shortcut_lightning.cli.errors import UserError, is_first_process, no_file, notice
from shortcut_lightning.cli.same_run import Facts
from shortcut_lightning.files.atomic import reclaim_all

# Words that Lightning resolves itself.
_LIGHTNINGS = ("hpc", "registry")


def find_checkpoint(given: str, runs: Path, must_exist: bool) -> str | None:
    """The file that `--ckpt_path` means.

    Args:
        given: a file, "last" (the newest checkpoint among the runs of this name) or one of
            Lightning's own words.
        runs: the folder `<output_dir>/<name>` that holds the runs of this name.
        must_exist: False lets "last" mean a fresh start when there is no checkpoint yet, so that
            the same command line starts a job and continues it.

    Raises:
        UserError: no such file.
    """
    if given.partition(":")[0] in _LIGHTNINGS or "://" in given:
        return given
    if given == "best":
        raise UserError(
            "--ckpt_path best: which one that is, is known only to the run that made it; give the"
            f" file, or 'last' for the newest under {runs}"
        )
    if given == "last":
        _sweep(runs)
        found = sorted(runs.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found and must_exist:
            raise UserError(f"--ckpt_path last: no {runs}/*/checkpoints/last.ckpt")
        if not found:
            notice(f"--ckpt_path last: nothing under {runs} yet, starting from the beginning")
        return str(found[-1]) if found else None
    if not Path(given).is_file():
        raise UserError(no_file("--ckpt_path", given, "*.ckpt"))
    return given


def _sweep(runs: Path) -> None:
    """Removes the halves of what killed runs were writing, checkpoints above all."""
    if is_first_process():
        for run in runs.glob("*/"):
            for folder in (run, *run.glob("**/")):
                reclaim_all(folder)


class ConfigWins(Callback):
    """Lets changed optimiser settings take effect on resuming.

    Restoring an optimiser brings back its old settings, so a new learning rate would do nothing,
    silently. The checkpoint remembers what its run was asked for; where this run was asked for
    something else, that is applied. An unchanged configuration resumes bit for bit.

    Attributes:
        facts: What the run learns and from what, for the checkpoint to say; see `same_run.py`.
    """

    def __init__(self) -> None:
        self.facts: Facts = {}
        self._asked: list[list[dict[str, Any]]] = []
        self._asked_then: list[list[dict[str, Any]]] = []
        self._optimizers: list[str] = []
        self._checkpoint: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self._asked, "facts": self.facts, "optimizers": self._optimizers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._asked_then = state_dict["asked"]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._checkpoint = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._optimizers = [type(each).__name__ for each in trainer.optimizers]
        if self._checkpoint:
            then = self._checkpoint["callbacks"].get("ConfigWins", {}).get("optimizers", [])
            check_optimizers(self._checkpoint, trainer.optimizers, then)
            self._checkpoint = {}
        # The optimisers are as configured here; Lightning restores their state right afterwards.
        self._asked = [
            [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer, now, then in zip(
            trainer.optimizers, self._asked, self._asked_then, strict=False
        ):
            for i, group in enumerate(optimizer.param_groups[: len(then)]):
                _apply_changes(group, now[i], then[i])
        for entry in trainer.lr_scheduler_configs:
            # A scheduler restored its old base rates too; they follow the groups'.
            for scheduler in getattr(entry.scheduler, "_schedulers", [entry.scheduler]):
                if hasattr(scheduler, "base_lrs"):
                    scheduler.base_lrs = [
                        group.get("initial_lr", group["lr"])
                        for group in scheduler.optimizer.param_groups
                    ]


def _apply_changes(group: dict[str, Any], now: dict[str, Any], then: dict[str, Any]) -> None:
    """Sets in `group` what is asked for `now` and was not `then`; says so on screen."""
    scheduled = "initial_lr" in now and "initial_lr" in then
    for key, value in now.items():
        if value == then.get(key) or (key == "lr" and scheduled):
            continue
        if key == "initial_lr" and then[key]:
            group["lr"] *= value / then[key]  # where the schedule stands, on the new scale
        group[key] = value
        name = "lr" if key == "initial_lr" else key
        notice(f"resuming with {name} {value}, as configured (the checkpoint had {then.get(key)})")
