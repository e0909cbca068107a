"""Another family's model, lent to a purifier by its name."""

from functools import lru_cache

import torch

from shortcut_lightning import backbones
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.backbones.paths import RectifiedFlow

OTHER = "other"  # the built-in family that is not of the run's kind


def lent(name: str, beside: Backbone, device: torch.device) -> Backbone:
    """A frozen model by name, `other` standing for `pocket` beside a rectified flow and for
    `pocket-flow` beside anything else. Raises ValueError as `backbones.load`."""
    if name == OTHER:
        name = "pocket" if isinstance(beside.path, RectifiedFlow) else "pocket-flow"
    return _loaded(name).to(device)


@lru_cache(maxsize=1)
def _loaded(name: str) -> Backbone:
    model = backbones.load(name, key="data.purifiers.backbone")
    return model.requires_grad_(False).eval()
