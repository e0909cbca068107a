"""Training the text encoder on words alone, then the UNet and the text encoder together."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from shortcut_lightning.pocket import WEIGHTS, family
from shortcut_lightning.pocket.data import Collection
from shortcut_lightning.pocket.labels import ATTRIBUTES, IGNORE
from shortcut_lightning.pocket.schedule import warm_flat_fall
from shortcut_lightning.pocket.tokenizer import build_tokenizer


class CaptionTraining(pl.LightningModule):
    """Tokens of a batch's captions, and the schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = build_tokenizer()

    def tokens(self, captions: list[str]) -> Tensor:
        """Token ids int64 (N, 77)."""
        encoded = self.tokenizer(
            captions, padding="max_length", truncation=True, return_tensors="pt"
        )
        return encoded.input_ids.to(self.device)

    def varied(self, indices: Tensor) -> list[str]:
        """A varied caption of each training picture, another one at every step."""
        pictures: Collection = self.trainer.datamodule.training  # type: ignore[attr-defined]
        return [pictures.caption(index, self.global_step) for index in indices.tolist()]

    def full(self, indices: Tensor) -> list[str]:
        """The full caption of each held-out picture."""
        pictures: Collection = self.trainer.datamodule.held_out  # type: ignore[attr-defined]
        return [pictures.caption(index) for index in indices.tolist()]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(),
            self.hparams["learning_rate"],
            (0.9, 0.99),
            weight_decay=0.01,
            fused=True,
        )
        schedule = warm_flat_fall(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip here: Lightning refuses to beside a fused optimizer, which is four times faster."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)


class WordTraining(CaptionTraining):
    """Half a minute in which the text encoder learns to tell the factors from the words.

    The state at the end token predicts every attribute. Without this start the UNet learns to paint
    before captions mean anything, and afterwards ignores them.
    """

    def __init__(self, learning_rate: float = 1e-3, output: str | None = str(WEIGHTS)) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = family.build_text_encoder()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(family.WIDTH, len(c)) for name, c in ATTRIBUTES.items()}
        )

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        pooled = self.encoder(self.tokens(self.varied(batch[2]))).pooler_output.float()
        terms = [
            F.cross_entropy(self.heads[name](pooled), batch[1][:, column], ignore_index=IGNORE)
            for column, name in enumerate(ATTRIBUTES)
        ]
        loss = torch.stack(terms).sum()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_fit_end(self) -> None:
        if self.hparams["output"] is not None and self.trainer.is_global_zero:
            family.save_text_encoder(self.encoder, Path(self.hparams["output"]) / "text_encoder")


class TextToImageTraining(CaptionTraining):
    """Noise prediction on cached latents; UNet and text encoder learn together.

    The squared error of the noise is weighted by min(1 / alpha_bar, 8), which moves effort to the
    noisy timesteps where the caption decides; timesteps are stratified over the batch.

    Args:
        learning_rate: Peak of the schedule `warm_flat_fall`.
        caption_dropout: Share of captions replaced by "", for classifier-free guidance.
        focus: Share of timesteps drawn from 150 to 550, where mouths and glasses are decided.
        text_encoder: Folder of a text encoder to start from; None starts from random weights.
        output: Folder that receives the pipeline at the end; None keeps the checkpoint only.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        caption_dropout: float = 0.1,
        focus: float = 0.0,
        text_encoder: str | None = None,
        output: str | None = str(WEIGHTS),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        from diffusers.models.attention_processor import AttnProcessor

        self.unet = family.build_unet()
        # Plain matrix products: fused attention in bfloat16 is ten times slower on CPUs.
        self.unet.set_attn_processor(AttnProcessor())
        self.encoder = family.build_text_encoder()
        self.encoder.set_attn_implementation("eager")
        if text_encoder is not None:
            start = type(self.encoder).from_pretrained(text_encoder, dtype=torch.float32)
            self.encoder.load_state_dict(start.state_dict())
        alphas = family.build_scheduler().alphas_cumprod
        self.register_buffer("alphas", alphas, persistent=False)
        self.alphas: Tensor

    def loss(
        self, latents: Tensor, captions: list[str], timesteps: Tensor, noise: Tensor
    ) -> Tensor:
        """Weighted squared error per picture (N,)."""
        alpha = self.alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        states = self.encoder(self.tokens(captions)).last_hidden_state
        predicted = self.unet(noisy, timesteps, states).sample.float()
        return (predicted - noise).square().mean((1, 2, 3)) * (1 / alpha.flatten()).clamp(max=8)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        mean, deviation = batch[0].float().chunk(2, dim=1)
        latents = mean + deviation * torch.randn_like(mean)
        captions = self.varied(batch[2])
        dropped = torch.rand(len(captions)) < self.hparams["caption_dropout"]
        captions = ["" if drop else text for drop, text in zip(dropped, captions, strict=True)]
        strata = torch.arange(len(latents), device=self.device) + torch.rand_like(mean[:, 0, 0, 0])
        strata = strata / len(latents)
        focused = torch.rand_like(strata) < self.hparams["focus"]
        timesteps = (torch.where(focused, 0.15 + 0.4 * strata, strata) * 1000).long().clamp(max=999)
        loss = self.loss(latents, captions, timesteps, torch.randn_like(latents)).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Loss with the right captions, with each other's, and with none, at t = 600."""
        latents = batch[0].float().chunk(2, dim=1)[0]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(batch_idx))
        noise = noise.to(latents)
        captions = self.full(batch[2])
        timesteps = torch.full((len(latents),), 600, device=self.device)
        arms = {
            "": captions,
            "_shuffled": captions[1:] + captions[:1],
            "_null": [""] * len(captions),
        }
        for arm, texts in arms.items():
            loss = self.loss(latents, texts, timesteps, noise).mean()
            self.log(f"val/loss600{arm}", loss, batch_size=len(latents), sync_dist=True)

    def on_fit_end(self) -> None:
        if self.hparams["output"] is not None and self.trainer.is_global_zero:
            family.save_family(Path(self.hparams["output"]), self.unet, self.encoder)
