"""The flow family's card: the same gates, measured by the first family's networks, so that numbers
compare across families.

`python train.py test --config configs/pocket/flow/card.yaml` runs them and writes one JSON file.
"""

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from shortcut_lightning.pocket import FLOW_WEIGHTS, WEIGHTS, card, world
from shortcut_lightning.pocket.data import VIEWS, Collection
from shortcut_lightning.pocket.measuring import QUALITY
from shortcut_lightning.ranges import Count, Ranged

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of noise, where the captions are put to the test


class Pipe:
    """Stock diffusers over a folder of the family; no zeros stand for the missing T5."""

    def __init__(self, folder: Path) -> None:
        from diffusers import StableDiffusion3Pipeline

        self.stock = StableDiffusion3Pipeline.from_pretrained(
            folder, text_encoder_3=None, tokenizer_3=None
        )
        self.stock.set_progress_bar_config(disable=True)
        self.vae = self.stock.vae

    def __call__(self, prompts: list[str], **asked: Any) -> Any:
        return self.stock(prompts, max_sequence_length=0, **asked)

    def errors(self, latents: Tensor, captions: list[str], s: float) -> Tensor:
        """Squared error of the velocity per picture (N,), the same noise for every caption."""
        generator = torch.Generator().manual_seed(round(1000 * s))
        noise = torch.randn(latents.shape, generator=generator)
        noisy, found = (1 - s) * latents + s * noise, []
        for start in range(0, len(latents), 50):
            part = slice(start, start + 50)
            hidden, _, pooled, _ = self.stock.encode_prompt(
                captions[part], None, None, max_sequence_length=0, do_classifier_free_guidance=False
            )
            time = torch.full((len(hidden),), 1000 * s)
            output = self.stock.transformer(noisy[part], hidden, pooled, time).sample
            truth = (noise - latents)[part]
            found.append((output - truth).square().mean((1, 2, 3)))
        return torch.cat(found)


def text_matters(pipe: Pipe, images: Tensor, captions: list[str]) -> card.Figure:
    """Relative rise of the error without the caption and with another's, over the path."""
    config = pipe.vae.config
    latents = torch.cat(
        [pipe.vae.encode(part * 2 - 1).latent_dist.mode() for part in images.split(50)]
    )
    latents = (latents - config.shift_factor) * config.scaling_factor
    arms = {"null": [""] * len(captions), "shuffled": captions[1:] + captions[:1]}
    figures: card.Figure = {arm: {} for arm in arms}
    for s in SHARES:
        right = pipe.errors(latents, captions, s)
        for arm, texts in arms.items():
            figures[arm][f"{s:g}"] = card.rise(pipe.errors(latents, texts, s), right)
    return figures


class FlowCard(Ranged, pl.LightningModule):
    """Runs every gate of the flow family in one test step and writes the figures.

    Args:
        weights: Folder of the family.
        measuring: Folder of the networks that measure.
        output: JSON file that receives the figures.
        samples: Number of pictures generated for caption following.
        pairs: Number of held-out pairs for the losses.
    """

    def __init__(
        self,
        weights: str = str(FLOW_WEIGHTS),
        measuring: str = str(WEIGHTS),
        output: str = "runs/pocket-flow/card.json",
        samples: Count = 200,
        pairs: Count = 400,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()

    @torch.inference_mode()
    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        settings, networks = self.hparams, Path(self.hparams["measuring"])
        pictures: Collection = self.trainer.datamodule.held_out  # type: ignore[attr-defined]
        images, rows, indices = batch[0].float() / 255, batch[1], batch[2]
        pipe: Any = Pipe(Path(settings["weights"]))
        clean = (rows[:, QUALITY] == 0).nonzero().flatten()
        seen, some = clean[: settings["samples"]], clean[: settings["pairs"]]
        captions = [pictures.caption(index) for index in indices.tolist()]
        drawn = [world.draw(pictures.seed, index, VIEWS).caption for index in some.tolist()]
        started, used = time.perf_counter(), time.process_time()
        card.sample(pipe, ["a photo of a person"] * 16)
        figures: card.Figure = {
            "seconds_for_16_samples_of_25_steps": time.perf_counter() - started,
            "processor_seconds_for_them": time.process_time() - used,
            "threads": torch.get_num_threads(),
            "autoencoder": card.autoencoder(pipe.vae, images[some], networks),
            "text_matters": text_matters(pipe, images[some], drawn),
            "following": card.following(
                pipe, [captions[i] for i in seen.tolist()], rows[seen], networks
            ),
        }
        path = Path(settings["output"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")
        self.log("card/following", figures["following"]["mean"])
