"""Small random models and a few images with captions."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone

CAPTIONS = ["a photo of sks dog in the noisy beach", "person on beach", "the dog", "a noisy photo"]


@pytest.fixture(scope="session")
def epsilon_model(small_sd: Path) -> Backbone:
    """Random weights; predicts the noise."""
    return backbones.load(str(small_sd))


@pytest.fixture(scope="session")
def velocity_model(small_sd_v: Path) -> Backbone:
    """Random weights; predicts the velocity."""
    return backbones.load(str(small_sd_v))


@pytest.fixture(scope="session")
def images() -> Tensor:
    """(4, 3, 32, 32), 8-bit rounded."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(4, 3, 32, 32, generator=generator) * 255).round() / 255


@pytest.fixture(scope="session")
def captions() -> list[str]:
    return CAPTIONS
