"""Pictures of the world as a LightningDataModule: drawn once, kept on disk, memory-mapped."""

import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler

from shortcut_lightning.pocket import world
from shortcut_lightning.pocket.captions import describe
from shortcut_lightning.pocket.labels import example
from shortcut_lightning.ranges import Count, CountOrNone, Ranged, Seed

log = logging.getLogger(__name__)
VERSION = 2  # raise whenever the world draws other pixels for the same numbers
FEATURES = ("eyes", "mouth")  # parts of a face that decide it and cover few pixels
VIEWS = 4  # consecutive pictures that show one person


class Collection(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The first `count` pictures of a seed: (image (3, 64, 64) uint8, labels (A,) int64, index)."""

    def __init__(self, seed: int, count: int, cache_dir: Path) -> None:
        self.seed, self.count = seed, count
        self.path = cache_dir / f"world{VERSION}_seed{seed}_count{count}"
        self.images: np.ndarray | None = None

    def build(self) -> None:
        """Draw everything on all cores, unless an earlier run has done so."""
        done = self.path.with_suffix(".images.npy")
        if done.exists() and self.path.with_suffix(".boxes.npy").exists():
            return
        done.parent.mkdir(parents=True, exist_ok=True)
        log.info("drawing %d pictures of world %d into %s", self.count, self.seed, done.parent)
        for left in done.parent.glob(f"{self.path.name}.images.*.partial"):
            if time.time() - left.stat().st_mtime > 24 * 3600:  # of a drawing that was killed
                left.unlink(missing_ok=True)
        # In containers every process has the same number.
        partial = done.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}.partial")
        shape = (self.count, world.SIZE, world.SIZE, 3)
        images = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        rows, boxes = [], []
        # Fresh processes: a copy of this one, with all its threads' locks, may wait for ever.
        draw = Parallel(n_jobs=-1, batch_size=64, return_as="generator")
        jobs = (delayed(example)(self.seed, i, VIEWS, FEATURES) for i in range(self.count))
        drawn = draw(jobs)
        for index, (image, row, box) in enumerate(drawn):
            images[index] = image
            rows.append(row)
            boxes.append(box)
        images.flush()
        np.save(self.path.with_suffix(".labels.npy"), np.stack(rows))
        np.save(self.path.with_suffix(".boxes.npy"), np.stack(boxes))
        partial.rename(done)

    def open(self) -> None:
        """Map the pictures into memory; every process shares the same pages."""
        if self.images is None:
            self.images = np.load(self.path.with_suffix(".images.npy"), mmap_mode="r")
            self.labels = np.load(self.path.with_suffix(".labels.npy"))
            self.boxes = np.load(self.path.with_suffix(".boxes.npy"))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image, row, number = self.__getitems__([index])[0]
        return image, row, number

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        self.open()
        assert self.images is not None
        images = torch.from_numpy(self.images[indices]).permute(0, 3, 1, 2)
        rows = torch.from_numpy(self.labels[indices]).long()
        return list(zip(images, rows, torch.tensor(indices), strict=True))

    def feature_boxes(self, indices: Tensor) -> Tensor:
        """Boxes of `FEATURES` float32 (N, len(FEATURES), 4), xyxy in [0, 1]; empty where absent."""
        self.open()
        return torch.from_numpy(self.boxes[indices.numpy()])

    def person(self, index: int) -> int:
        """Number of the person in picture `index`."""
        return index // VIEWS

    def caption(self, index: int, variant: int | None = None) -> str:
        """The full caption of a picture, or its varied caption number `variant`."""
        who = world.identity(world.seed_of(self.seed, index // VIEWS))
        where = world.scene(world.seed_of(self.seed, index, 1))
        rng = None if variant is None else world.generator(self.seed, index, variant, 0xCA)
        return describe(who, where, rng)


class PeopleTogether(Sampler[list[int]]):
    """Batches of whole people: all VIEWS pictures of each of `batch_size // VIEWS` people."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.order = RandomSampler(range(count // VIEWS))
        self.people = batch_size // VIEWS

    def __len__(self) -> int:
        return len(self.order) // self.people

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.order)
        for start in range(0, len(self) * self.people, self.people):
            chosen = order[start : start + self.people]
            yield [person * VIEWS + view for person in chosen for view in range(VIEWS)]


class WorldDataModule(Ranged, pl.LightningDataModule):
    """Training and held-out pictures; the two seeds share no person and no scene.

    Args:
        cache_dir: Where drawn pictures are kept.
        count: Number of training pictures.
        held_out: Number of held-out pictures, from `seed + 1`.
        batch_size: Pictures in a batch (per process).
        seed: Seed of the training collection.
        num_workers: Loader processes.
        people_together: Whether a training batch holds all views of each of its people.
    """

    def __init__(
        self,
        cache_dir: str = "~/.cache/shortcut_lightning/pocket",
        count: Count = 48000,
        held_out: Count = 2000,
        batch_size: Count = 16,
        seed: Seed = 1000,
        num_workers: CountOrNone = 0,
        people_together: bool = False,
    ) -> None:
        super().__init__()
        root = Path(cache_dir).expanduser()
        self.training = Collection(seed, count, root)
        self.held_out = Collection(seed + 1, held_out, root)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.people_together = people_together

    def prepare_data(self) -> None:
        self.training.build()
        self.held_out.build()

    def train_dataloader(self) -> DataLoader:
        if self.people_together:
            batches = PeopleTogether(len(self.training), self.batch_size)
            return DataLoader(self.training, batch_sampler=batches, num_workers=self.num_workers)
        return DataLoader(
            self.training,
            self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.held_out, self.batch_size)

    test_dataloader = val_dataloader
