"""Training the second family's transformer and text encoders together: a rectified flow.

x_s = (1 - s) x_0 + s eps; the network predicts eps - x_0 (Stable Diffusion 3, arXiv 2403.03206).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from shortcut_lightning.pocket import WEIGHTS, family, flow_family
from shortcut_lightning.pocket.labels import ATTRIBUTES, IGNORE
from shortcut_lightning.pocket.text_to_image import CaptionTraining, attribute_loss, feature_weights
from shortcut_lightning.pocket.tokenizer import build_tokenizer
from shortcut_lightning.ranges import NotNegative, Positive, Share

TRAINED_FLOW = "runs/pocket-flow/weights"


class FlowTraining(CaptionTraining):
    """Velocity prediction on cached latents.

    s is logit-normal, stratified over the batch and shifted as the sampler's schedule is. The first
    text encoder starts as the other family's; both learn on, and are kept from letting words drift
    together by `word_weight`.

    Args:
        learning_rate: Peak of the schedule `warm_flat_fall`.
        caption_dropout: Share of captions replaced by "", for classifier-free guidance.
        word_weight: Weight of the attribute heads on the pooled states.
        feature_weight: How much more an element under the eyes or the mouth counts than one
            elsewhere; each picture's weights have mean one.
        spread: Deviation of logit(s); its mean is 0.
        text_encoder: Folder of the text encoder that the first one starts from.
        output: Folder that receives the pipeline at the end; None keeps the checkpoint only.
    """

    def __init__(
        self,
        learning_rate: Positive = 1e-3,
        caption_dropout: Share = 0.1,
        word_weight: NotNegative = 0.05,
        feature_weight: NotNegative = 4.0,
        spread: NotNegative = 1.0,
        text_encoder: str = str(WEIGHTS / "text_encoder"),
        output: str | None = TRAINED_FLOW,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tokenizer = build_tokenizer(flow_family.LENGTH)
        self.transformer = flow_family.build_transformer()
        self.encoders = nn.ModuleList(flow_family.build_text_encoders())
        self._start_first_encoder(Path(text_encoder))
        width = family.WIDTH + flow_family.SECOND
        self.heads = nn.ModuleDict({n: nn.Linear(width, len(c)) for n, c in ATTRIBUTES.items()})
        for encoder in self.encoders:
            encoder.set_attn_implementation("eager")  # type: ignore[operator]

    def _start_first_encoder(self, folder: Path) -> None:
        from transformers import CLIPTextModel

        first: Any = self.encoders[0]
        start = CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
        first.text_model.load_state_dict(start.state_dict())
        nn.init.eye_(first.text_projection.weight)

    def embedded(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Hidden states (N, L, D) and pooled ones (N, D), as the pipeline joins them: the layer
        before the last of both encoders side by side."""
        ids = self.tokens(captions)
        found = [encoder(ids, output_hidden_states=True) for encoder in self.encoders]
        hidden = torch.cat([each.hidden_states[-2] for each in found], -1)
        return hidden, torch.cat([each.text_embeds for each in found], -1)

    def errors(
        self, latents: Tensor, text: tuple[Tensor, Tensor], s: Tensor, noise: Tensor
    ) -> Tensor:
        """Squared errors of the velocity (N, C, 16, 16)."""
        share = s[:, None, None, None]
        noisy = (1 - share) * latents + share * noise
        with plain_attention():
            found = self.transformer(noisy, text[0], text[1], s * 1000).sample
        return (found.float() - (noise - latents)).square()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        mean, deviation = batch[0].float().chunk(2, dim=1)
        latents = mean + deviation * torch.randn_like(mean)
        captions = self.varied(batch[2])
        dropped = torch.rand(len(captions)) < self.hparams["caption_dropout"]
        captions = ["" if drop else text for drop, text in zip(dropped, captions, strict=True)]
        text = self.embedded(captions)
        errors = self.errors(latents, text, self.drawn(latents), torch.randn_like(latents))
        weights = feature_weights(
            self.trainer.datamodule.training,  # type: ignore[attr-defined]
            batch[2],
            latents,
            self.hparams["feature_weight"],
        )
        loss = (errors * weights).mean()
        kept = torch.tensor([text != "" for text in captions], device=self.device)
        labels = torch.where(kept[:, None], batch[1], IGNORE)
        words = attribute_loss(self.heads, text[1], labels)
        self.log_dict({"train/loss": loss, "train/words": words}, prog_bar=True)
        return loss + self.hparams["word_weight"] * words

    def drawn(self, latents: Tensor) -> Tensor:
        """(N,) shares of noise in (0, 1), stratified over the batch."""
        strata = torch.arange(len(latents), device=self.device) + torch.rand_like(
            latents[:, 0, 0, 0]
        )
        normal = torch.special.ndtri((strata / len(latents)).clamp(1e-4, 1 - 1e-4))
        return shifted((self.hparams["spread"] * normal).sigmoid())

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Loss with the right captions, with each other's, and with none, at s = 0.7."""
        latents = batch[0].float().chunk(2, dim=1)[0]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(batch_idx))
        captions = self.full(batch[2])
        s = torch.full((len(latents),), 0.7, device=self.device)
        arms = {
            "": captions,
            "_shuffled": captions[1:] + captions[:1],
            "_null": [""] * len(captions),
        }
        for arm, texts in arms.items():
            loss = self.errors(latents, self.embedded(texts), s, noise.to(latents)).mean()
            self.log(f"val/loss07{arm}", loss, batch_size=len(latents), sync_dist=True)

    def on_fit_end(self) -> None:
        if self.hparams["output"] is not None and self.trainer.is_global_zero:
            folder = Path(self.hparams["output"])
            flow_family.save_family(folder, self.transformer, list(self.encoders))


def shifted(s: Tensor, shift: float = flow_family.SHIFT) -> Tensor:
    """Where a schedule with this shift puts a share of noise (arXiv 2403.03206, eq. 23)."""
    return shift * s / (1 + (shift - 1) * s)


class _Plain(TorchFunctionMode):
    """Attention by plain matrix products: the fused one in bfloat16 is ten times slower on CPUs."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            return scores.softmax(-1).to(value.dtype) @ value
        return func(*args, **(kwargs or {}))


@contextmanager
def plain_attention() -> Iterator[None]:
    """Where attention of CPUs does without the fused kernel."""
    with _Plain():
        yield
