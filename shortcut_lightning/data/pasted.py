"""Pictures with concepts pasted on the fly, for training a network that counts them."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from shortcut_lightning import backbones, draws
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.concepts.generators import ConceptGenerator
from shortcut_lightning.concepts.grid_classifier import cell_targets
from shortcut_lightning.data.implicit_concepts import pictures_of
from shortcut_lightning.data.stream import StreamLoader, StreamSampler
from shortcut_lightning.ranges import Count, CountOrNone, Ranged, Seed, Share


class PastedConcepts(Ranged, LightningDataModule):
    """Half of the pictures show one concept, drawn anew each time; all are softened and tinted a
    little, and a share goes through an autoencoder, since it is generated pictures that are judged.

    Args:
        concepts: What is pasted, each with a label of its own.
        source: A folder of pictures, or `pocket:<seed>`.
        count: Pictures of the world; for a folder, 0 takes all.
        resolution: Side in pixels.
        batch_size: Pictures in a batch.
        batches: Batches in an epoch.
        decoded: Share of each batch that is encoded and decoded.
        autoencoder: The model that does it: `pocket`, a diffusers folder or a hub id.
        seed: Fixes everything.
    """

    def __init__(
        self,
        concepts: Sequence[ConceptGenerator],
        source: str = "pocket:900",
        count: CountOrNone = 1000,
        resolution: Count = 64,
        batch_size: Count = 64,
        batches: Count = 100,
        seed: Seed = 0,
        decoded: Share = 0.0,
        autoencoder: str = "pocket",
    ) -> None:
        super().__init__()
        self.concepts = list(concepts)
        self.source = source
        self.count = count
        self.resolution = resolution
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.decoded = decoded
        self.autoencoder = autoencoder
        self.images: list[Tensor] = []
        self._backbone: list[Backbone] = []

    def setup(self, stage: str) -> None:
        """Loads or draws the pictures; the last tenth is for validation."""
        if not self.images:
            found = pictures_of(self.source, self.count, self.resolution, "a photo")
            self.images = [example.image for example in found[: self.count or None]]
        if self.decoded and not self._backbone:
            model = backbones.load(self.autoencoder, key="data.autoencoder")
            self._backbone = [model.requires_grad_(False).eval()]

    def train_dataloader(self) -> StreamLoader:
        """New pictures in every epoch, from where training stands."""
        trainer = self.trainer
        assert trainer is not None
        progress = trainer.fit_loop.epoch_loop.batch_progress
        images = self.images[: -max(len(self.images) // 10, 1)]
        rows = _Pasted(images, self.concepts, self.batches * self.batch_size, self.seed + 1)
        sampler = StreamSampler(
            rows,
            self.batches,
            self.batch_size,
            trained=lambda: progress.total.processed,  # type: ignore[attr-defined]
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return StreamLoader(rows, self.batch_size, sampler=sampler)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The same pictures each time, of people not trained on."""
        images = self.images[-max(len(self.images) // 10, 1) :]
        return DataLoader(_Pasted(images, self.concepts, 4 * len(images), self.seed), 64)

    @torch.no_grad()
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch with its first rows as the autoencoder gives them back."""
        images, cells = batch
        count = round(self.decoded * len(images))
        if count:
            model = self._backbone[0].to(images.device)
            seen = model.decode(model.encode(images[:count]).mean)
            images = torch.cat([seen, images[count:]])
        return images, cells


class _Pasted(Dataset[tuple[Tensor, Tensor]]):
    """(3, H, W) in [0, 1] and (L, 8, 8) by number, without end; an epoch is `count` of them."""

    def __init__(
        self, images: Sequence[Tensor], concepts: Sequence[ConceptGenerator], count: int, seed: int
    ) -> None:
        self.images, self.concepts, self.count, self.seed = images, concepts, count, seed
        self.labels = [concept.label for concept in concepts]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        chance = draws.generator(self.seed, "pasted", number)
        image = self.images[int(torch.randint(len(self.images), (), generator=chance))]
        if torch.rand((), generator=chance) < 0.5:
            image = image.flip(-1)
        cells = torch.zeros(len(self.labels), 8, 8)
        if torch.rand((), generator=chance) < 0.5:
            concept = self.concepts[int(torch.randint(len(self.concepts), (), generator=chance))]
            image, boxes = concept(image, self.seed, number)
            cells = cell_targets(boxes, self.labels)
        return softened(image, chance), cells


def softened(image: Tensor, chance: torch.Generator) -> Tensor:
    """(3, H, W) in [0, 1], half of the time shrunk and enlarged again; tinted and grainy."""
    side = image.shape[-1]
    if torch.rand((), generator=chance) < 0.5:
        smaller = int(side * (0.6 + 0.4 * torch.rand((), generator=chance)))
        shrunk = functional.interpolate(
            image[None], (smaller, smaller), mode="bilinear", antialias=True
        )
        image = functional.interpolate(shrunk, (side, side), mode="bilinear")[0]
    tint = 1 + 0.08 * torch.randn(3, 1, 1, generator=chance)
    strength = 0.03 * torch.rand((), generator=chance)
    grain = strength * torch.randn(image.shape, generator=chance)
    return (image * tint + grain).clamp(0, 1)
