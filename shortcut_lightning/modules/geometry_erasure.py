"""Geom-Erasing (arXiv 2310.05873): words for places, so that a concept has something to be.

Training captions name a detected concept and the bins it covers (`data.erasing`). The concept goes
into those words, and what is sampled without them comes out clean. The step is DreamBooth's: the
captions and the loss weights come with the batch.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.concepts.geometry import Grid
from shortcut_lightning.modules.dreambooth import DreamBooth
from shortcut_lightning.modules.token_positions import sine_cosine
from shortcut_lightning.ranges import Bins, NotNegative, Share


class GeometryErasure(DreamBooth):
    """DreamBooth with a word for each bin of the image.

    Args:
        removal: `data` learns a clean model from contaminated images (UNet or its adapters, with
            the words). `model` keeps the model and learns the words alone, to be used in negative
            prompts; without them it draws exactly what the pretrained model draws.
        grid_size: Bins along a side; `data.erasing.grid_size` must be the same.
        location_init: Start of the words' vectors: random directions, or the sine and cosine of
            their places (GeoDiffusion, arXiv 2306.04607); both of the vocabulary's typical norm.
        prompt_drop: Share of instance images trained with an empty prompt. It keeps the
            unconditional branch, which guidance pushes away from, at seeing the concept.
        new_tokens: More words to learn, for example a concept's own name.
        token_initializers: A known word for each of `new_tokens`; empty draws random directions.
        token_lr: Of all new words.
        **dreambooth: What `DreamBooth` takes. `train_unet` follows from `removal`.
    """

    def __init__(
        self,
        removal: Literal["data", "model"] = "data",
        grid_size: Bins = 8,
        location_init: Literal["random", "sine"] = "random",
        prompt_drop: Share = 0.1,
        new_tokens: list[str] = [],  # noqa: B006
        token_initializers: list[str] = [],  # noqa: B006
        token_lr: NotNegative = 5e-4,
        **dreambooth: Any,
    ) -> None:
        if removal == "model" and dreambooth.get("train_text_encoder"):
            raise ValueError(
                "model.removal 'model' learns words alone, but model.train_text_encoder is true: "
                "set it to false, or model.removal to 'data'."
            )
        locations = Grid(grid_size).tokens
        if token_initializers:
            token_initializers = [*token_initializers, *[""] * len(locations)]
        super().__init__(
            train_unet=removal == "data",
            new_tokens=[*new_tokens, *locations],
            token_initializers=token_initializers,
            token_lr=token_lr,
            **dreambooth,
        )
        self.prompt_drop = prompt_drop
        if location_init == "sine":
            for rows in self.backbone.token_rows:
                start = sine_cosine(grid_size, rows.shape[1]).to(rows)
                with torch.no_grad():
                    norm = rows[-len(locations) :].norm(dim=1, keepdim=True)
                    rows[-len(locations) :] = start / start.norm(dim=1, keepdim=True) * norm

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        return super().training_step(self.dropped(batch), batch_idx)

    def dropped(self, batch: TrainBatch) -> TrainBatch:
        """The batch with the prompts of some instance images replaced by "", those of its contrast
        too: nothing is to be told from an empty prompt. Whether one is depends on its draw alone.
        """

        def emptied(prompts: list[str]) -> list[str]:
            return ["" if gone else prompt for prompt, gone in zip(prompts, drops, strict=True)]

        drops = []
        for draw, is_prior in zip(batch.draws.tolist(), batch.is_prior.tolist(), strict=True):
            chance = torch.rand((), generator=draws.generator(self.seed, "prompt drop", draw))
            drops.append(bool(chance < self.prompt_drop) and not is_prior)
        contrast = batch.contrast
        if contrast is not None:
            contrast = contrast._replace(prompts=emptied(contrast.prompts))
        return batch._replace(prompts=emptied(batch.prompts), contrast=contrast)
