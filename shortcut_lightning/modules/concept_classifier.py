"""Training of the small network that counts concepts (`concepts/grid_classifier.py`)."""

from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from shortcut_lightning.concepts.grid_classifier import GridClassifier, GridNetwork
from shortcut_lightning.ranges import Between, Positive, Ranged

Labelled = tuple[Tensor, Tensor]


class ConceptClassifierTraining(Ranged, LightningModule):
    """Is the concept in the picture, and in which cells?

    Batches are pairs of images (B, 3, H, W) in [0, 1] and cells (B, L, 8, 8), as `PastedConcepts`
    makes them.

    Args:
        labels: Concepts, in the order of the cells.
        output: Folder that receives the network when training ends; empty writes none.
        side: What images are resized to.
        width: Channels of the first layer.
        learning_rate: Peak of a one-cycle schedule.
        start: Folder of a trained network to go on with or to `validate`; `pocket` is the one that
            comes with the package.

    Validation logs for each label the share of pictures with it that are recognised (`hits`), of
    pictures without it that are not taken for it (`correct_rejections`, other concepts may be in
    them), and of pictures without any concept that are taken for it (`false_alarms_clean`), which
    is the floor of a concept ratio.
    """

    def __init__(
        self,
        labels: list[str],
        output: str = "",
        side: Annotated[int, Between(32, multiple=8)] = 64,
        width: Annotated[int, Between(8, multiple=8)] = 24,
        learning_rate: Positive = 3e-3,
        start: str = "",
    ) -> None:
        super().__init__()
        self.network = GridNetwork(labels, side, width)
        if start:
            self.network = GridClassifier(start).network.train().requires_grad_(True)
        self.output = output
        self.learning_rate = learning_rate

    def training_step(self, batch: Labelled, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Labelled, batch_idx: int) -> None:
        images, cells = batch
        present = cells.amax((2, 3)) > 0
        found = self.network(images)[0] > 0
        clean = ~present.any(dim=1)
        self.log("val/loss", self.loss(batch), batch_size=len(images))
        for number, label in enumerate(self.network.labels):
            shown, absent = present[:, number], ~present[:, number]
            name = label.replace(" ", "_")
            for what, rows, wanted in (
                ("hits", shown, True),
                ("correct_rejections", absent, False),
                ("false_alarms_clean", clean, True),
            ):
                if rows.any():
                    share = (found[rows, number] == wanted).float().mean()
                    self.log(f"val/{what}_{name}", share, batch_size=int(rows.sum()))

    def loss(self, batch: Labelled) -> Tensor:
        """Cross-entropy of presence plus that of the cells."""
        images, cells = batch
        image_logits, cell_logits = self.network(images)
        present = (cells.amax((2, 3)) > 0).float()
        return binary_cross_entropy_with_logits(
            image_logits, present
        ) + binary_cross_entropy_with_logits(cell_logits, cells)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=0.02)
        steps = max(int(self.trainer.estimated_stepping_batches), 2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_end(self) -> None:
        if self.output and self.trainer.is_global_zero:
            self.network.save(Path(self.output).expanduser())
