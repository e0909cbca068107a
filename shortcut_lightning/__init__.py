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

__version__ = "0.1.0"
__all__ = ["attacks", "backbones", "concepts", "membership", "metrics", "purifiers"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
