"""Training the small CLIP: contrast between pictures and captions, helped by the factors."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcut_lightning.pocket import TRAINED, family, tokenizer
from shortcut_lightning.pocket.labels import ATTRIBUTES, IGNORE
from shortcut_lightning.pocket.text_to_image import CaptionTraining
from shortcut_lightning.ranges import NotNegative, Positive

if TYPE_CHECKING:
    from transformers import CLIPModel

WIDTH = 64  # of the shared space


def build_clip() -> "CLIPModel":
    """A fresh CLIP (0.6 M): 64 px in patches of 8, pixels normalised as 2 x - 1."""
    from transformers import CLIPConfig, CLIPModel

    vision = {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "hidden_act": "quick_gelu",
    }
    text = family.text_settings(WIDTH, layers=3)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


class ClipTraining(CaptionTraining):
    """Contrastive learning; both towers also predict the factors, by heads that are thrown away.

    The extra task stands for the hundreds of millions of pairs that teach a web-scale CLIP words.
    Pictures with the very same caption (a noise pattern, "a photo of a person") are no negatives.

    Args:
        learning_rate: Peak of the schedule `warm_flat_fall`.
        factor_weight: Weight of the factor predictions beside the contrast.
        output: Folder that receives `clip/` when training ends; None keeps the checkpoint only.
    """

    def __init__(
        self,
        learning_rate: Positive = 1.5e-3,
        factor_weight: NotNegative = 0.1,
        output: str | None = TRAINED,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.clip = build_clip()
        self.clip.set_attn_implementation("eager")
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTH, len(c)) for name, c in ATTRIBUTES.items()}
        )

    def embed(self, images: Tensor, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Raw embeddings of pictures uint8 (N, 3, 64, 64) and of their captions (N, 64)."""
        seen = self.clip.get_image_features(pixel_values=images.float() / 127.5 - 1).pooler_output
        read = self.clip.get_text_features(input_ids=self.tokens(captions)).pooler_output
        return seen.float(), read.float()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        captions = self.varied(batch[2])
        tint = 1 + 0.05 * torch.randn(len(captions), 3, 1, 1, device=self.device)
        seen, read = self.embed((batch[0].float() * tint).clamp(0, 255), captions)
        scale = self.clip.logit_scale.exp().clamp(max=100)
        logits = scale * F.normalize(seen, dim=-1) @ F.normalize(read, dim=-1).T
        number = {text: n for n, text in enumerate(captions)}
        key = torch.tensor([number[text] for text in captions], device=self.device)
        twins = (key[:, None] == key[None]) & ~torch.eye(
            len(key), dtype=torch.bool, device=self.device
        )
        logits = logits.masked_fill(twins, -1e4)
        target = torch.arange(len(logits), device=self.device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        factors = self.factors(seen, batch[1]) + self.factors(read, batch[1])
        self.log_dict({"train/loss": contrast, "train/factors": factors}, prog_bar=True)
        return contrast + self.hparams["factor_weight"] * factors

    def factors(self, embedding: Tensor, rows: Tensor) -> Tensor:
        """Cross-entropy of all factors predicted from an embedding."""
        terms = [
            F.cross_entropy(self.heads[name](embedding), rows[:, column], ignore_index=IGNORE)
            for column, name in enumerate(ATTRIBUTES)
        ]
        return torch.stack(terms).sum()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Top-1 of picture to full caption within the batch."""
        captions = self.full(batch[2])
        seen, read = self.embed(batch[0], captions)
        best = (F.normalize(seen, dim=-1) @ F.normalize(read, dim=-1).T).argmax(-1).tolist()
        right = [captions[found] == text for found, text in zip(best, captions, strict=True)]
        self.log("val/top1", sum(right) / len(right), prog_bar=True)

    def on_fit_end(self) -> None:
        if self.hparams["output"] is None or not self.trainer.is_global_zero:
            return
        folder = Path(self.hparams["output"]) / "clip"
        self.clip.half().save_pretrained(folder)
        family.declare_float32(folder / "config.json")
        tokenizer.save_tokenizer(folder)
