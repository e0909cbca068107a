"""Every run has its own folder `<output_dir>/<name>/version_N`, which is `trainer.log_dir`.

It holds config.yaml (which runs again with `--config`), metrics.csv, checkpoints/ and what the
callbacks add. The first logger is always a CSVLogger, because Lightning takes `log_dir` from it.
"""

import os
import re
import warnings
from pathlib import Path

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from shortcut_lightning.cli.errors import UserError, is_first_process, notice


class SaveRunConfig(SaveConfigCallback):
    """Writes config.yaml and hands the same settings to the loggers that show them."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        config = yaml.safe_load(self.parser.dump(self.config))
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # the folder has config.yaml already
                logger.log_hyperparams(config)


def claim_version(folder: Path) -> int:
    """Makes the next free `folder/version_N` and returns N; safe when runs start together.

    Only rank 0 makes the folder. The other ranks' number is never used: `trainer.log_dir` and
    checkpoint folders are broadcast from rank 0.
    """
    while True:
        taken = [re.fullmatch(r"version_(\d+)", path.name) for path in folder.glob("version_*")]
        version = max((int(match[1]) + 1 for match in taken if match), default=0)
        if not is_first_process():
            return version
        try:
            (folder / f"version_{version}").mkdir(parents=True)
            return version
        except FileExistsError:  # another run was faster
            continue


def discard_if_empty(folder: Path) -> None:
    """Removes a claimed folder in which nothing was written, as after a mistake in the config."""
    for path in (folder, folder.parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def refuse_outside(key: str, name: object, inside: str) -> None:
    """Raises UserError where a `name` that becomes a folder would leave the folder it is made in,
    or be that folder itself. `key` is where it was given and `inside` what holds that folder."""
    path = Path(str(name))
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in str(name):
        raise UserError(
            f"{key}: {str(name)!r} does not lie inside {inside}; give a plain name, or one with "
            "folders such as 'dogs/first'"
        )


def prepare_loggers(trainer: Namespace, name: str, output_dir: Path) -> Path:
    """Puts a CSVLogger first, points the others at its folder, and returns that folder.

    Args:
        trainer: the trainer's configuration, changed in place before anything is built.
        name: the run's name, a folder under `output_dir`.
        output_dir: where runs are kept.

    Raises:
        UserError: a name that leads out of the folder where runs or a logger's files are kept.
    """
    refuse_outside("name", name, "--output_dir")
    given = trainer.get("logger")
    loggers = given if isinstance(given, list) else [given] if isinstance(given, Namespace) else []
    for spec in loggers:
        _refuse_outside(spec)
    tables = [spec for spec in loggers if spec.class_path.endswith("CSVLogger")]
    first = tables[0] if tables else _csv_logger(name, output_dir)
    settings = first.init_args
    root = Path(settings.save_dir) / (settings.get("name") or "")
    claimed = settings.get("version") is None
    if claimed:
        settings.version = claim_version(root)
    version = settings.version
    folder = root / (version if isinstance(version, str) else f"version_{version}")
    if claimed:  # another logger may write there first; there is no older metrics.csv to lose
        warnings.filterwarnings("ignore", f"Experiment logs directory {re.escape(str(folder))} ")
    others = [spec for spec in loggers if spec is not first]
    for spec in others:
        if spec.class_path.endswith("WandbLogger"):
            _prepare_wandb(spec, folder, f"{name}/{folder.name}")
    trainer.logger = [first, *others]
    return folder


def _refuse_outside(logger: Namespace) -> None:
    """The names that a logger makes folders of below its `save_dir`; those of W&B are titles."""
    short = logger.class_path.rpartition(".")[2]
    if short == "WandbLogger":
        return
    for argument in ("name", "version", "sub_dir"):
        value = (logger.get("init_args") or {}).get(argument)
        if isinstance(value, str) and value:
            refuse_outside(f"trainer.logger.{argument}", value, f"the save_dir of {short}")


def _csv_logger(name: str, output_dir: Path) -> Namespace:
    settings = Namespace(save_dir=os.fspath(output_dir), name=name, flush_logs_every_n_steps=10)
    return Namespace(class_path="lightning.pytorch.loggers.CSVLogger", init_args=settings)


def _prepare_wandb(spec: Namespace, folder: Path, title: str) -> None:
    """Writes into the run folder; goes offline rather than ask for a login or wait for a server."""
    settings = spec.init_args
    if settings.get("save_dir") in (None, ".") and settings.get("dir") is None:
        # Absolute: W&B writes from a process that may have been started in another folder.
        settings.save_dir = os.fspath(folder.resolve())
    if settings.get("name") is None:
        settings.name = title
    if settings.get("project") is None and "WANDB_PROJECT" not in os.environ:
        settings.project = "shortcut-lightning"
    extra = spec.get("dict_kwargs") or {}  # what WandbLogger hands on to wandb.init
    mode = extra.get("mode") or os.environ.get("WANDB_MODE", "online")
    if mode != "online" or not is_first_process():
        return
    reason = "" if settings.get("offline") else _why_not_online()
    if reason:
        notice(f"W&B: {reason}; logging offline, upload with: wandb sync {folder}/wandb/offline-*")
    if reason or settings.get("offline"):
        # The mode itself: `offline` sets a variable that wandb may have read before.
        settings.offline = False
        spec.dict_kwargs = {**extra, "mode": "offline"}


def _why_not_online() -> str:
    """Empty if W&B has credentials that its server accepts within seconds."""
    import wandb  # only when asked for: the import costs a second

    try:
        return "" if wandb.login(prompt=False) else "no API key"
    except Exception as error:  # its errors have no common base; none of them may stop a training
        return " ".join(str(error).split())[:120]
