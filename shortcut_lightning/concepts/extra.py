"""Packages of the extra `detect`, with a message that says so where they are missing."""

from contextlib import suppress
from importlib import import_module, metadata
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


def versions(*packages: str) -> str:
    """Those of the packages that are installed, each with its version, for `Detector.version`."""
    found = []
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return ", ".join(found)


def opencv() -> Any:
    """OpenCV."""
    return needed("cv2", "Finding and inpainting concepts")
