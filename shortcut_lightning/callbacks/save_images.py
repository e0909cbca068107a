"""`predict` writes its images to a folder."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from shortcut_lightning.batch import PromptBatch
from shortcut_lightning.callbacks import samples as sampled
from shortcut_lightning.callbacks.trainers import run_folder
from shortcut_lightning.files.images import write_png
from shortcut_lightning.report.pictures import to_pil


class SaveImages(Callback):
    """Each predicted image as PNG as soon as it is made, and `metadata.jsonl` with its prompt.

    Args:
        output: Folder that receives them, created if missing; empty is `images` in the run folder.
        overwrite: Allow an output folder that already holds images.
    """

    def __init__(self, output: str = "", overwrite: bool = False) -> None:
        self.output = output
        self.overwrite = overwrite

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.folder = Path(self.output) if self.output else run_folder(trainer) / "images"
        self._made: list[tuple[int, str, str, int]] = []
        if not self.overwrite and any(self.folder.glob("*.png")):
            raise ValueError(
                f"{self.folder} already holds images; set SaveImages.output to another folder, or "
                "SaveImages.overwrite to true"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        trainer.strategy.barrier("images may be written from here on")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not (isinstance(batch, PromptBatch) and isinstance(outputs, Tensor)):
            return
        for sample in sampled.from_batch(batch, outputs):
            path = self.folder / sampled.file_name(sample.id)
            write_png(to_pil(sample.pixels.float() / 255), path)
            self._made.append((sample.id, sample.asked, sample.negative_prompt, sample.seed))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shards = [self._made]
        if trainer.world_size > 1:
            shards = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(shards, self._made)
        if trainer.is_global_zero:
            made = sorted({row for shard in shards for row in shard})
            sampled.write_metadata(self.folder, made)
