"""Personalised text-to-image diffusion with PyTorch Lightning: protect, purify, train, audit.

The rooms are loaded when first asked for, so importing the package costs nothing:

    import shortcut_lightning as sl
    model = sl.backbones.load("pocket")

`README.md` beside this file shows each room in a few lines.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortcut_lightning import attacks, backbones, concepts, membership, metrics, purifiers
    from shortcut_lightning.photographs import Photographs

__version__ = "0.1.0"
__all__ = ["Photographs", "attacks", "backbones", "concepts", "membership", "metrics", "purifiers"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Photographs":
        return import_module(f"{__name__}.photographs").Photographs
    return import_module(f"{__name__}.{name}")
