"""Learned restoration with the network that comes with the package."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier


class PocketRestoration(Purifier):
    """The restoration network that comes with the package. It works at 64 px, the size of the
    pocket's world: larger photographs lose everything finer than that."""

    differentiable = True

    @cached_property
    def network(self) -> Any:
        """The frozen network, loaded at first use."""
        from shortcut_lightning.pocket import WEIGHTS, networks

        if not (WEIGHTS / "restoration" / "config.json").is_file():
            raise ValueError(
                "PocketRestoration's weights are not in this installation; choose another purifier "
                "(data.purifiers)."
            )
        return networks.load_restoration()

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        return self.network.to(images.device)(images)
