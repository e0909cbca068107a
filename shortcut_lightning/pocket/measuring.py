"""Training the networks that measure: identity encoder and attribute classifier."""

from abc import ABC
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcut_lightning import weights
from shortcut_lightning.pocket import TRAINED, networks
from shortcut_lightning.pocket.data import VIEWS
from shortcut_lightning.pocket.labels import ATTRIBUTES, IGNORE
from shortcut_lightning.pocket.schedule import warm_flat_fall
from shortcut_lightning.ranges import Positive, Ranged

QUALITY = list(ATTRIBUTES).index("quality")


class MeasureTraining(Ranged, pl.LightningModule, ABC):
    """What both trainings share: mild distortions, schedule, and writing the weights at the end.

    Generated pictures are softer than drawn ones, so the networks see pictures that were shrunk and
    enlarged again, tinted and slightly noisy, and, given `autoencoder`, decoded ones.

    Args:
        learning_rate: Peak of the schedule `warm_flat_fall`.
        autoencoder: Folder of a trained autoencoder; None before there is one.
        output: Folder that receives `name/` when training ends; None keeps the checkpoint only.
    """

    name = ""
    network: nn.Module

    def __init__(
        self,
        learning_rate: Positive = 2e-3,
        autoencoder: str | None = None,
        output: str | None = TRAINED,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._decoder: list[nn.Module] = []  # in a list, so that it enters no checkpoint

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), self.hparams["learning_rate"], weight_decay=0.02
        )
        schedule = warm_flat_fall(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        if self.hparams.get("autoencoder") and not self._decoder:
            from diffusers import AutoencoderKL

            model = (
                weights.load(AutoencoderKL, self.hparams["autoencoder"], "model.autoencoder")
                .eval()
                .requires_grad_(False)
            )
            self._decoder.append(model.to(self.device))

    def distort(self, images: Tensor) -> Tensor:
        """Pictures as they come back from a camera roll or a decoder; (N, 3, H, W) in [0, 1]."""
        if self._decoder:
            half = images[::2] * 2 - 1
            with torch.no_grad():
                decoded = self._decoder[0](half).sample / 2 + 0.5
            images = images.clone()
            images[::2] = decoded.to(images.dtype)
        if torch.rand(()) < 0.5:
            size = int(torch.randint(40, 64, ()))
            images = networks.fit(networks.fit(images, (size, size)), (64, 64))
        shape = (len(images), 3, 1, 1)
        tint = 1 + 0.06 * torch.randn(shape, device=images.device)
        grain = 0.02 * torch.rand(shape, device=images.device) * torch.randn_like(images)
        return (images * tint + grain).clamp(0, 1)

    def on_fit_end(self) -> None:
        if self.hparams["output"] is not None and self.trainer.is_global_zero:
            networks.save(self.network, Path(self.hparams["output"]) / self.name)


class IdentityTraining(MeasureTraining):
    """Supervised contrast: the views of one person against everybody else in the batch.

    Wants batches in which each person appears with several views (`people_together: true`).
    """

    name = "identity"

    def __init__(
        self,
        learning_rate: Positive = 2e-3,
        autoencoder: str | None = None,
        output: str | None = TRAINED,
        temperature: Positive = 0.1,
    ) -> None:
        super().__init__(learning_rate, autoencoder, output)
        self.save_hyperparameters()
        self.network = networks.IdentityEncoder()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, _rows, indices = (part[batch[1][:, 0] != IGNORE] for part in batch)
        vectors = self.network(self.distort(images.float() / 255)).float()
        person = indices // VIEWS
        itself = torch.eye(len(person), dtype=torch.bool, device=person.device)
        same = (person[:, None] == person[None]) & ~itself
        scores = (vectors @ vectors.T / self.hparams["temperature"]).masked_fill(itself, -1e4)
        likelihood = (scores.log_softmax(-1) * same).sum(-1) / same.sum(-1).clamp(min=1)
        loss = -likelihood.mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._seen: list[tuple[Tensor, Tensor]] = []

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        clean = batch[1][:, QUALITY] == 0
        vectors = self.network(batch[0][clean].float() / 255).float()
        self._seen.append((vectors, batch[2][clean] // VIEWS))

    def on_validation_epoch_end(self) -> None:
        vectors, person = (torch.cat(part) for part in zip(*self._seen, strict=True))
        few = person < 200
        self.log(
            "val/top1_of_200",
            nearest_is_same(vectors[few], person[few]).float().mean(),
            prog_bar=True,
        )


def nearest_is_same(vectors: Tensor, person: Tensor) -> Tensor:
    """For each picture that has a partner: does the nearest other picture show the same person?"""
    scores = (vectors @ vectors.T).fill_diagonal_(-2)
    partner = (person[:, None] == person[None]).sum(-1) > 1
    return (person[scores.argmax(-1)] == person)[partner]


class AttributeTraining(MeasureTraining):
    """Cross-entropy summed over all attributes that can be seen in the picture."""

    name = "attributes"

    def __init__(
        self,
        learning_rate: Positive = 2e-3,
        autoencoder: str | None = None,
        output: str | None = TRAINED,
    ) -> None:
        super().__init__(learning_rate, autoencoder, output)
        self.network = networks.AttributeClassifier()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        logits = self.network(self.distort(batch[0].float() / 255))
        terms = [
            F.cross_entropy(logits[name].float(), batch[1][:, column], ignore_index=IGNORE)
            for column, name in enumerate(ATTRIBUTES)
        ]
        loss = torch.stack(terms).sum()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        logits = self.network(batch[0].float() / 255)
        clean = batch[1][:, QUALITY] == 0
        for column, name in enumerate(ATTRIBUTES):
            seen = batch[1][:, column] != IGNORE
            seen = seen if name == "quality" else seen & clean
            right = (logits[name].argmax(-1) == batch[1][:, column])[seen].float().mean()
            self.log(f"val/{name}", right, batch_size=int(seen.sum()))
