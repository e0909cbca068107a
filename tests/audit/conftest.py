"""A small random model and a few images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone


@pytest.fixture(scope="session")
def epsilon_model(small_sd: Path) -> Backbone:
    """Random weights; predicts the noise."""
    return backbones.load(str(small_sd))


@pytest.fixture(scope="session")
def images() -> Tensor:
    """(4, 3, 32, 32), 8-bit rounded."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(4, 3, 32, 32, generator=generator) * 255).round() / 255
