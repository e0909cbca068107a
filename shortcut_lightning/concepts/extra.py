"""Packages of the extra `detect`, with a message that says so where they are missing."""

from importlib import import_module
from typing import Any

INSTALL = "pip install 'shortcut-lightning[detect]'"


def needed(module: str, purpose: str, install: str = INSTALL) -> Any:
    """The module. Raises ValueError, naming what needs it and how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{purpose} needs the package {module}, which cannot be imported ({error}): {install}"
        ) from error


def opencv() -> Any:
    """OpenCV."""
    return needed("cv2", "Finding and inpainting concepts")
