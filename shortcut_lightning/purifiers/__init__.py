"""Cleaning of protected images; `base.py` says what all purifiers promise.

Each name is loaded when first asked for, so that a blur does not wait for diffusion libraries.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortcut_lightning.purifiers.base import Purifier
    from shortcut_lightning.purifiers.external_restoration import ExternalRestoration
    from shortcut_lightning.purifiers.face_restoration import FaceRestoration
    from shortcut_lightning.purifiers.freqpure import FreqPure
    from shortcut_lightning.purifiers.gaussian import Gaussian
    from shortcut_lightning.purifiers.gaussian_noise import GaussianNoise
    from shortcut_lightning.purifiers.gridpure import GridPure
    from shortcut_lightning.purifiers.impress import Impress
    from shortcut_lightning.purifiers.jpeg import Jpeg
    from shortcut_lightning.purifiers.optimal_step import OptimalStep
    from shortcut_lightning.purifiers.oracle import Oracle
    from shortcut_lightning.purifiers.other_autoencoder import OtherAutoencoder
    from shortcut_lightning.purifiers.pocket_restoration import PocketRestoration
    from shortcut_lightning.purifiers.resize import Resize
    from shortcut_lightning.purifiers.sdedit import SDEdit
    from shortcut_lightning.purifiers.swin2sr import Swin2SR
    from shortcut_lightning.purifiers.total_variation import TotalVariation
    from shortcut_lightning.purifiers.upscaler import Upscaler

__all__ = [
    "ExternalRestoration",
    "FaceRestoration",
    "FreqPure",
    "Gaussian",
    "GaussianNoise",
    "GridPure",
    "Impress",
    "Jpeg",
    "OptimalStep",
    "Oracle",
    "OtherAutoencoder",
    "PocketRestoration",
    "Purifier",
    "Resize",
    "SDEdit",
    "Swin2SR",
    "TotalVariation",
    "Upscaler",
]

_FILES = {
    "ExternalRestoration": "external_restoration",
    "FaceRestoration": "face_restoration",
    "FreqPure": "freqpure",
    "Gaussian": "gaussian",
    "GaussianNoise": "gaussian_noise",
    "GridPure": "gridpure",
    "Impress": "impress",
    "Jpeg": "jpeg",
    "OptimalStep": "optimal_step",
    "Oracle": "oracle",
    "OtherAutoencoder": "other_autoencoder",
    "PocketRestoration": "pocket_restoration",
    "Purifier": "base",
    "Resize": "resize",
    "SDEdit": "sdedit",
    "Swin2SR": "swin2sr",
    "TotalVariation": "total_variation",
    "Upscaler": "upscaler",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
