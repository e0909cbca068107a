"""The round trip through another family's autoencoder, called VAE-Trans (arXiv 2603.13028, of which
the abstract was at hand)."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.families import OTHER, lent
from shortcut_lightning.purifiers.resampling import resized, shrunk


class OtherAutoencoder(Purifier):
    """Encodes (the posterior's mean) and decodes with an autoencoder that the attack was not made
    on. An attacker who knows it has its gradient.

    Args:
        backbone: Whose autoencoder: `pocket`, `pocket-flow`, a diffusers folder or a hub id; or
            `other`, the built-in family that is not of the run's kind, which knows pictures of 64
            px. All of the model is loaded.
    """

    differentiable = True

    def __init__(self, backbone: str = OTHER) -> None:
        self.backbone = backbone

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        model = lent(self.backbone, backbone, images.device)
        fitting = shrunk(images, 1, model.multiple)
        again = model.decode(model.encode(fitting).mean)
        return resized(again, (images.shape[-2], images.shape[-1]))
