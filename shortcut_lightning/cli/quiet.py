"""Messages of the libraries that are wrong or useless here, by their exact wording."""

import logging
import warnings

_WARNINGS = (
    # torch and lightning, on every run
    r".*isinstance\(treespec, LeafSpec\)",
    # a handful of photographs in memory needs no worker processes
    r"The '\w+' does not have many workers",
    # Lightning counts steps across epochs, so short epochs are logged all the same
    r"The number of training batches .* is smaller than the logging interval",
    # a resumed run has its own folder on purpose
    r"The dirpath has changed from",
    # Lightning passes the argument itself
    r".*anonymous setting has no effect",
)
_LOGGER = "lightning.pytorch.utilities.rank_zero"


def _not_a_tip(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("💡 Tip")


def quiet() -> None:
    """Silences them; everything else still shows."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logger = logging.getLogger(_LOGGER)
    if _not_a_tip not in logger.filters:
        logger.addFilter(_not_a_tip)
