"""Models that the tests of attacks share, and never change."""

from pathlib import Path

import pytest

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone


@pytest.fixture(scope="session")
def noise_model(small_sd: Path) -> Backbone:
    return backbones.load(str(small_sd)).requires_grad_(False).eval()


@pytest.fixture(scope="session")
def velocity_model(small_sd_v: Path) -> Backbone:
    return backbones.load(str(small_sd_v)).requires_grad_(False).eval()
