"""What no training can exceed: the references as the model's autoencoder gives them back."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from shortcut_lightning.callbacks.evaluation import SubjectData
from shortcut_lightning.callbacks.measures import EncoderCallback
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.metrics.encoders import ImageEncoder, PocketIdentity, image_features
from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.metrics.identity import identity_match

_BATCH = 8


class IdentityCeiling(EncoderCallback):
    """`identity_ceiling`: `identity` of the references after the autoencoder, on the tuned arm.

    Args:
        encoder: The one of `IdentityMatch`.
    """

    def __init__(self, encoder: ImageEncoder = PocketIdentity()) -> None:  # noqa: B008
        super().__init__(encoder)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._module: Any = pl_module

    @torch.no_grad()
    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        references = self.reference_features(samples, datamodule)
        if not len(references) or samples.arm != "tuned" or datamodule is None:
            return {}
        backbone = self._module.backbone
        images = torch.stack([example.image for example in datamodule.references])
        decoded = torch.cat(
            [
                backbone.decode(backbone.encode(batch.to(samples.device)).mean).float().cpu()
                for batch in images.split(_BATCH)
            ]
        )
        features = image_features(self.encoder, decoded, samples.device)
        return {"identity_ceiling": identity_match(features, references)}
