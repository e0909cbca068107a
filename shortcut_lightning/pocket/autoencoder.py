"""Training an autoencoder: f = 4, Stable Diffusion's own class; four latent channels or more."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from shortcut_lightning import weights
from shortcut_lightning.pocket import TRAINED
from shortcut_lightning.pocket.schedule import warm_flat_fall
from shortcut_lightning.ranges import Count, NotNegative, Positive, Ranged

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def build_autoencoder(
    widths: tuple[int, ...] = (16, 48, 80), latent_channels: int = 4
) -> "AutoencoderKL":
    """A fresh AutoencoderKL for 64 px pictures (latents C x 16 x 16)."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


class AutoencoderTraining(Ranged, pl.LightningModule):
    """Reconstruction by absolute error and by absolute error of edges, with a faint KL term.

    The edge term keeps eyes and moles, a few pixels each, from being averaged away. The KL weight
    is chosen for a posterior deviation of about 2 to 5 % of the latents' own.

    Args:
        learning_rate: Peak of the schedule `warm_flat_fall`.
        edge_weight: Weight of the edge term.
        kl_weight: Weight of the mean KL divergence per latent element.
        latent_channels: Channels of the latents; 4 as Stable Diffusion has, more as newer families.
        shift: Note the latents' mean as `shift_factor`, as Stable Diffusion 3 does.
        polish: Folder of a trained autoencoder whose decoder alone learns on. Its latents stay what
            they are, so this can run beside or after the training of the UNet.
        output: Folder that receives `vae/` when training ends; None keeps the checkpoint only.
    """

    def __init__(
        self,
        learning_rate: Positive = 1.6e-3,
        edge_weight: NotNegative = 0.5,
        kl_weight: NotNegative = 1e-4,
        latent_channels: Count = 4,
        shift: bool = False,
        polish: str | None = None,
        output: str | None = TRAINED,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = build_autoencoder(latent_channels=latent_channels)
        if polish is not None:
            self.model = weights.load(type(self.model), polish, "model.polish")
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images = batch[0].float() / 127.5 - 1
        posterior = self.model.encode(images).latent_dist
        latents = posterior.sample()
        decoded = self.model.decode(latents).sample.float()
        error = (decoded - images).abs().mean()
        edges = sum((_edges(decoded, d) - _edges(images, d)).abs().mean() for d in (2, 3))
        kl = (
            0.5
            * (
                posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()
            ).mean()
        )
        loss = error + self.hparams["edge_weight"] * edges + self.hparams["kl_weight"] * kl
        self.log_dict({"train/loss": loss, "train/error": error, "train/kl": kl}, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images = batch[0].float() / 127.5 - 1
        latents = self.model.encode(images).latent_dist.mode()
        decoded = self.model.decode(latents).sample.float().clamp(-1, 1)
        error = F.mse_loss(decoded, images, reduction="none").mean((1, 2, 3)) / 4
        psnr = -10 * error.log10()
        clean = batch[1][:, -1] == 0
        self.log("val/psnr_clean", psnr[clean].mean(), batch_size=int(clean.sum()), sync_dist=True)
        self.log("val/psnr", psnr.mean(), batch_size=len(psnr), sync_dist=True)
        self.log("val/latent_std", latents.float().std(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            self.hparams["learning_rate"],
            (0.9, 0.99),
            weight_decay=1e-4,
        )
        schedule = warm_flat_fall(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def on_fit_end(self) -> None:
        """Measure what brings latents to unit deviation, and with `shift` to mean zero; write
        `vae/`."""
        if self.hparams["output"] is None or not self.trainer.is_global_zero:
            return
        if self.hparams["polish"] is None:
            self.model.register_to_config(**self._normalisation())
        self.model.half().save_pretrained(Path(self.hparams["output"]) / "vae")

    def _normalisation(self) -> dict[str, float]:
        loader = self.trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
        latents = [
            self.model.encode(images.to(self.device).float() / 127.5 - 1).latent_dist.sample()
            for images, *_ in loader
        ]
        every = torch.cat(latents)
        found = {"scaling_factor": round(1 / float(every.std()), 5)}
        if self.hparams["shift"]:
            found["shift_factor"] = round(float(every.mean()), 5)
        return found


def _edges(images: Tensor, dim: int) -> Tensor:
    """Differences of neighbouring pixels along `dim`."""
    size = images.shape[dim] - 1
    return images.narrow(dim, 1, size) - images.narrow(dim, 0, size)
