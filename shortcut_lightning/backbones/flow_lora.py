"""LoRA files of flows in the names of their makers' own code, where queries, keys and values are
one layer: diffusers has a converter for each family."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

from torch import Tensor

from shortcut_lightning.weights import one_line


def converted(pipeline_class: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in diffusers' names; as they are where the converter does not know all of them,
    of which it leaves some out with a warning, and others with an error of any kind."""
    read = pipeline_class.lora_state_dict
    # FLUX's takes alphas out of the tensors, and gives them to who asks alone.
    asked = {"return_alphas": True} if "return_alphas" in signature(read).parameters else {}
    try:
        with _warnings() as heard, one_line():
            found, *alphas, _ = read(dict(tensors), return_lora_metadata=True, **asked)
    except ValueError:
        return dict(tensors)
    return dict(tensors) if heard else {**found, **(alphas[0] or {} if alphas else {})}


@contextmanager
def _warnings() -> Iterator[list[logging.LogRecord]]:
    """What diffusers' loaders warn of inside, which is not shown."""
    log, listener = logging.getLogger("diffusers.loaders"), logging.Handler(logging.WARNING)
    heard: list[logging.LogRecord] = []

    def note(record: logging.LogRecord) -> bool:
        heard.append(record)
        return False

    listener.addFilter(note)
    level, propagates = log.level, log.propagate
    log.setLevel(logging.WARNING)
    log.propagate = False
    log.addHandler(listener)
    try:
        yield heard
    finally:
        log.removeHandler(listener)
        log.propagate = propagates
        log.setLevel(level)
