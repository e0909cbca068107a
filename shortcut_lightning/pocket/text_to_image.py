"""Training the text encoder on words alone, then the UNet and the text encoder together."""

from abc import ABC
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from shortcut_lightning import weights
from shortcut_lightning.pocket import TRAINED, family
from shortcut_lightning.pocket.data import Collection
from shortcut_lightning.pocket.labels import ATTRIBUTES, IGNORE
from shortcut_lightning.pocket.schedule import warm_flat_fall
from shortcut_lightning.pocket.tokenizer import build_tokenizer
from shortcut_lightning.ranges import Count, NotNegative, Positive, Ranged, Share


class CaptionTraining(Ranged, pl.LightningModule, ABC):
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


def attribute_heads() -> nn.ModuleDict:
    """A linear answer for each attribute, from the state at the end token."""
    return nn.ModuleDict({name: nn.Linear(family.WIDTH, len(c)) for name, c in ATTRIBUTES.items()})


def attribute_loss(heads: nn.ModuleDict, pooled: Tensor, labels: Tensor) -> Tensor:
    """Sum over the attributes of the cross-entropy of pooled states (N, width)."""
    terms = [
        F.cross_entropy(
            heads[name](pooled.float()), labels[:, column], ignore_index=IGNORE, reduction="sum"
        )
        / (labels[:, column] != IGNORE).sum().clamp(min=1)
        for column, name in enumerate(ATTRIBUTES)
    ]
    return torch.stack(terms).sum()


class WordTraining(CaptionTraining):
    """Half a minute in which the text encoder learns to tell the factors from the words.

    The state at the end token predicts every attribute. Without this start the UNet learns to paint
    before captions mean anything, and afterwards ignores them.
    """

    def __init__(self, learning_rate: Positive = 1e-3, output: str | None = TRAINED) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = family.build_text_encoder()
        self.heads = attribute_heads()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        pooled = self.encoder(self.tokens(self.varied(batch[2]))).pooler_output
        loss = attribute_loss(self.heads, pooled, batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_fit_end(self) -> None:
        if self.hparams["output"] is not None and self.trainer.is_global_zero:
            family.save_text_encoder(self.encoder, Path(self.hparams["output"]) / "text_encoder")


class TextToImageTraining(CaptionTraining):
    """Noise prediction on cached latents; UNet and text encoder learn together.

    The squared error of the noise is weighted by min(1 / alpha_bar, 8), which moves effort to the
    noisy timesteps where the caption decides; timesteps are stratified over the batch. Left to
    itself the text encoder lets words drift together whose pixels are few, such as expressions:
    `word_weight` and `feature_weight` are against that.

    Args:
        learning_rate: Peak of the schedule `warm_flat_fall`.
        caption_dropout: Share of captions replaced by "", for classifier-free guidance.
        focus: Share of timesteps drawn from 150 to 550, where mouths and glasses are decided.
        word_weight: Weight of the attribute heads on the text encoder, as in `WordTraining`.
        feature_weight: How much more an element under the eyes or the mouth counts than one
            elsewhere; each picture's weights have mean one.
        text_encoder: Folder of a text encoder to start from; None starts from random weights.
        unet: Folder of a UNet to start from; None starts from random weights.
        widths: Channels of the UNet's two levels.
        prediction_type: "epsilon" or "v_prediction", what the UNet's output means. The loss is that
            of the noise in both cases.
        output: Folder that receives the pipeline at the end; None keeps the checkpoint only.
    """

    def __init__(
        self,
        learning_rate: Positive = 1e-3,
        caption_dropout: Share = 0.1,
        focus: Share = 0.0,
        word_weight: NotNegative = 0.0,
        feature_weight: NotNegative = 0.0,
        text_encoder: str | None = None,
        unet: str | None = None,
        widths: tuple[Count, Count] = (64, 128),
        prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
        output: str | None = TRAINED,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        from diffusers.models.attention_processor import AttnProcessor

        self.unet = family.build_unet(widths)
        # Plain matrix products: fused attention in bfloat16 is ten times slower on CPUs.
        self.unet.set_attn_processor(AttnProcessor())
        self.encoder = family.build_text_encoder()
        self.encoder.set_attn_implementation("eager")
        if text_encoder is not None:
            start = weights.load(type(self.encoder), text_encoder, "model.text_encoder")
            self.encoder.load_state_dict(start.state_dict())
        if unet is not None:
            self.unet.load_state_dict(
                weights.load(type(self.unet), unet, "model.unet").state_dict()
            )
        self.heads = attribute_heads()
        alphas = family.build_scheduler().alphas_cumprod
        self.register_buffer("alphas", alphas, persistent=False)
        self.alphas: Tensor

    def errors(self, latents: Tensor, states: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Squared errors (N, 4, 16, 16), weighted by timestep."""
        alpha = self.alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        predicted = self.unet(noisy, timesteps, states).sample.float()
        if self.hparams["prediction_type"] == "v_prediction":
            predicted = alpha.sqrt() * predicted + (1 - alpha).sqrt() * noisy
        return (predicted - noise).square() * (1 / alpha).clamp(max=8)

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
        text = self.encoder(self.tokens(captions))
        errors = self.errors(latents, text.last_hidden_state, timesteps, torch.randn_like(latents))
        pictures: Collection = self.trainer.datamodule.training  # type: ignore[attr-defined]
        weights = feature_weights(pictures, batch[2], latents, self.hparams["feature_weight"])
        loss = (errors * weights).mean()
        kept = torch.tensor([text != "" for text in captions], device=self.device)
        labels = torch.where(kept[:, None], batch[1], IGNORE)
        words = attribute_loss(self.heads, text.pooler_output, labels)
        self.log_dict({"train/loss": loss, "train/words": words}, prog_bar=True)
        return loss + self.hparams["word_weight"] * words

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
            states = self.encoder(self.tokens(texts)).last_hidden_state
            loss = self.errors(latents, states, timesteps, noise).mean()
            self.log(f"val/loss600{arm}", loss, batch_size=len(latents), sync_dist=True)

    def on_fit_end(self) -> None:
        if self.hparams["output"] is not None and self.trainer.is_global_zero:
            kind = self.hparams["prediction_type"]
            family.save_family(Path(self.hparams["output"]), self.unet, self.encoder, kind)


def feature_weights(pictures: Collection, indices: Tensor, latents: Tensor, more: float) -> Tensor:
    """Weights (N, 1, h, w), mean one each: 1 + `more` where eyes and mouth are, before that."""
    boxes = pictures.feature_boxes(indices.cpu()).to(latents)[..., None]  # (N, F, 4, 1)
    inside = []
    for low, high, size in ((0, 2, latents.shape[3]), (1, 3, latents.shape[2])):
        cells = torch.arange(size, device=latents.device) / size
        inside.append((cells < boxes[:, :, high]) & (cells + 1 / size > boxes[:, :, low]))
    mask = (inside[1][..., None] & inside[0][..., None, :]).any(1, keepdim=True)
    weights = 1 + more * mask
    return weights / weights.mean((1, 2, 3), keepdim=True)
