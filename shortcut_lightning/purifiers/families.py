"""Another family's model, lent to a purifier by its name."""

from functools import lru_cache

import torch

from shortcut_lightning import backbones
from shortcut_lightning.backbones.base import Backbone

OTHER = "other"  # the built-in family that is not of the run's kind


def lent(name: str, beside: Backbone, device: torch.device) -> Backbone:
    """A frozen model by name, `other` standing for the built-in family of the other kind than
    `beside`. Raises ValueError as `backbones.load`."""
    return _loaded(beside.counterpart if name == OTHER else name).to(device)


@lru_cache(maxsize=1)
def _loaded(name: str) -> Backbone:
    model = backbones.load(name, key="data.purifiers.backbone")
    return model.requires_grad_(False).eval()
