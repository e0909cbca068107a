"""The upper bound: what the photographs were before anybody touched them."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier


class Oracle(Purifier):
    """Gives the clean images back. Only the data module can: it knows what it perturbed, and puts
    the clean images in this purifier's place (`data/stages.py`)."""

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """Raises ValueError: nothing else knows the clean images."""
        raise ValueError(
            "Oracle knows clean images only where data.attack perturbed them in the same run; "
            "choose another purifier for images that are protected already (data.purifiers)."
        )
