"""Training the restoration network: spoilt pictures in, drawn pictures out."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shortcut_lightning.pocket import TRAINED
from shortcut_lightning.pocket.measuring import QUALITY, MeasureTraining
from shortcut_lightning.pocket.networks import Restorer, fit
from shortcut_lightning.ranges import Positive


class RestorationTraining(MeasureTraining):
    """Absolute error on pictures spoilt by a random mix of shrinking, grain, sensor noise and JPEG.

    A quarter of the pictures stays as it is, so that the network learns to leave clean ones alone.
    No adversarial perturbation is among the degradations.
    """

    name = "restoration"

    def __init__(self, learning_rate: Positive = 2e-3, output: str | None = TRAINED) -> None:
        super().__init__(learning_rate, None, output)
        self.network = Restorer()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images = batch[0][batch[1][:, QUALITY] == 0].float() / 255
        loss = (self.network(spoil(images)) - images).abs().mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images = batch[0][batch[1][:, QUALITY] == 0].float() / 255
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch_idx)
            spoilt = spoil(images)
        changed = (spoilt != images).flatten(1).any(1)  # pictures left alone would flatter the rest
        if not changed.any():
            return
        spoilt, targets = spoilt[changed], images[changed]
        for name, pictures, truth in (
            ("spoilt", spoilt, targets),
            ("restored", self.network(spoilt), targets),
            ("clean", self.network(images), images),
        ):
            error = (pictures.float() - truth).square().mean((1, 2, 3)).clamp(min=1e-5)
            self.log(f"val/psnr_{name}", (-10 * error.log10()).mean(), batch_size=len(truth))


def spoil(images: Tensor) -> Tensor:
    """Spoil a batch in its own way, but for a quarter of its pictures (N, 3, 64, 64)."""
    spoilt = images
    chance = torch.rand(4).tolist()
    if chance[0] < 0.5:
        size = int(torch.randint(28, 60, ()))
        spoilt = fit(fit(spoilt, (size, size)), (64, 64))
    if chance[1] < 0.6:
        spoilt = spoilt + coarse_noise(spoilt)
    if chance[2] < 0.5:
        level = 0.12 * torch.rand(len(images), 1, 1, 1, device=images.device)
        spoilt = spoilt + level * torch.randn_like(spoilt)
    spoilt = spoilt.clamp(0, 1)
    if chance[3] < 0.3:
        spoilt = jpeg(spoilt, int(torch.randint(25, 90, ())))
    keep = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.25
    return torch.where(keep, images, spoilt)


def coarse_noise(images: Tensor) -> Tensor:
    """Noise with a grain of 2 to 4 px and up to 0.12 in deviation, partly grey."""
    size = int(torch.randint(16, 33, ()))
    noise = torch.randn(len(images), 3, size, size, device=images.device)
    noise = noise + 2 * torch.rand(()).item() * noise.mean(1, keepdim=True)
    noise = fit(noise, (64, 64))
    level = 0.12 * torch.rand(len(images), 1, 1, 1, device=images.device)
    return level * noise / noise.std((1, 2, 3), keepdim=True)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Through a JPEG file and back."""
    back = []
    for image in (images.detach().cpu().permute(0, 2, 3, 1) * 255).round().byte().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        back.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(back)).permute(0, 3, 1, 2).to(images) / 255
