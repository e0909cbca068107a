"""Pictures of the world as latents of a trained autoencoder, encoded once, kept on disk."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning import weights
from shortcut_lightning.pocket import WEIGHTS
from shortcut_lightning.pocket.data import Collection, WorldDataModule
from shortcut_lightning.ranges import Count, Seed

log = logging.getLogger(__name__)


class LatentCollection(Collection):
    """(latents (2 C, 16, 16) float16, labels, index): scaled posterior mean and deviation."""

    def __init__(self, pictures: Collection, autoencoder: Path) -> None:
        super().__init__(pictures.seed, pictures.count, pictures.path.parent)
        self.pictures, self.autoencoder = pictures, autoencoder
        digest = hashlib.sha256()
        for path in sorted(autoencoder.iterdir()):
            digest.update(path.read_bytes())
        self.latents_path = self.path.with_suffix(f".{digest.hexdigest()[:12]}.npy")
        self.latents: np.ndarray | None = None

    @torch.no_grad()
    def build(self) -> None:
        """Encode all pictures, unless an earlier run did so with this very autoencoder."""
        from diffusers import AutoencoderKL

        self.pictures.build()
        if self.latents_path.exists():
            return
        log.info("encoding %d pictures with %s", self.count, self.autoencoder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = weights.load(AutoencoderKL, self.autoencoder, "data.autoencoder").eval().to(device)
        partial = self.latents_path.with_suffix(".partial")
        shape = (self.count, 2 * model.config.latent_channels, 16, 16)
        latents = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
        self.pictures.open()
        assert self.pictures.images is not None
        for start in range(0, self.count, 100):
            images = torch.from_numpy(self.pictures.images[start : start + 100].copy()).to(device)
            posterior = model.encode(images.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
            mean = posterior.mean - (model.config.shift_factor or 0)
            moments = torch.cat([mean, posterior.std], 1) * model.config.scaling_factor
            latents[start : start + 100] = moments.cpu().numpy()
        latents.flush()
        partial.rename(self.latents_path)

    def open(self) -> None:
        if self.latents is None:
            super().open()
            self.latents = np.load(self.latents_path, mmap_mode="r")

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        self.open()
        assert self.latents is not None
        latents = torch.from_numpy(self.latents[indices])
        rows = torch.from_numpy(self.labels[indices]).long()
        return list(zip(latents, rows, torch.tensor(indices), strict=True))


class LatentDataModule(WorldDataModule):
    """`WorldDataModule` behind an autoencoder.

    Args:
        autoencoder: Folder of the autoencoder (diffusers layout).
        cache_dir: Where drawn pictures and latents are kept.
        count: Number of training pictures.
        held_out: Number of held-out pictures, from `seed + 1`.
        batch_size: Pictures in a batch (per process).
        seed: Seed of the training collection.
    """

    def __init__(
        self,
        autoencoder: str = str(WEIGHTS / "vae"),
        cache_dir: str = "~/.cache/shortcut_lightning/pocket",
        count: Count = 48000,
        held_out: Count = 2000,
        batch_size: Count = 16,
        seed: Seed = 1000,
    ) -> None:
        super().__init__(cache_dir, count, held_out, batch_size, seed)
        self.training = LatentCollection(self.training, Path(autoencoder))
        self.held_out = LatentCollection(self.held_out, Path(autoencoder))
