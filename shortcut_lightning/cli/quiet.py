"""Messages of the libraries that are wrong or useless here, by their exact wording."""

import logging
import re
import warnings
from collections.abc import Iterable

from lightning.pytorch.loggers import Logger, WandbLogger

_WARNINGS = (
    # torch and lightning, on every run
    r".*isinstance\(treespec, LeafSpec\)",
    # a handful of photographs in memory needs no worker processes
    r"The '\w+' does not have many workers",
    # Lightning counts steps across epochs, so short epochs are logged all the same
    r"The number of training batches .* is smaller than the logging interval",
    # what does not learn stays in eval mode, and a run without held-out pictures is no mistake
    r"Found \d+ module\(s\) in eval mode at the start of training",
    r"You defined a `validation_step` but have no `val_dataloader`",
    # Lightning's own use of jsonargparse and of tensorboard, for its developers
    r"(?s)\s*(By default only one Jsonargparse|.{,60} was deprecated in v4\.)",
    r"Starting from v1\.9\.0, `tensorboardX` has been removed",
    # a resumed run has its own folder on purpose
    r"The dirpath has changed from",
)
# Loggers of the libraries, and how the records begin that nobody needs.
_RECORDS = {
    "lightning.pytorch.utilities.rank_zero": r"💡 Tip",
    "transformers.utils.import_utils": r"`\w+ImageProcessor` requires torchvision",
    # said once before training, of captions and of prompts
    "diffusers.pipelines.flux.pipeline_flux": r"The following part of your input was truncated",
    # bitsandbytes without a GPU, wherever it is installed
    "bitsandbytes.backends.cpu.ops": r"Failed to load CPU gemm",
}


class _Without(logging.Filter):
    """Drops the records that begin in one way."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self.beginning = re.compile(beginning)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self.beginning.match(record.getMessage())


def quiet() -> None:
    """Silences them; everything else still shows."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name, beginning in _RECORDS.items():
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Without) for known in logger.filters):
            logger.addFilter(_Without(beginning))


def quiet_wandb(loggers: Iterable[Logger]) -> None:
    """Lightning hands wandb an argument of its own that wandb then warns about."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger._wandb_init.pop("anonymous", None)
