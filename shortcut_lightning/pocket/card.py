"""The model card's figures: each gate measured on held-out people and scenes, with an interval.

`python train.py test --config configs/pocket/card.yaml` runs them all and writes one JSON file.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from shortcut_lightning.pocket import WEIGHTS, networks, world
from shortcut_lightning.pocket.captions import describe
from shortcut_lightning.pocket.data import VIEWS, Collection
from shortcut_lightning.pocket.labels import ATTRIBUTES, IGNORE
from shortcut_lightning.pocket.measuring import QUALITY, nearest_is_same
from shortcut_lightning.pocket.restoration import spoil
from shortcut_lightning.ranges import Count, Ranged

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Figure = dict[str, Any]
TIMESTEPS = (50, 150, 250, 400, 600, 800, 950)
GUIDANCE, STEPS = 4.0, 25


def mean(values: Tensor) -> Figure:
    """Mean with a 95 % bootstrap interval (2000 resamples, fixed seed)."""
    values = values.double().flatten()
    draws = torch.randint(
        len(values), (2000, len(values)), generator=torch.Generator().manual_seed(0)
    )
    low, high = values[draws].mean(1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return {"value": float(values.mean()), "low": low, "high": high, "n": len(values)}


def share(hits: Tensor) -> Figure:
    """Share of true entries with a 95 % Wilson interval."""
    n, z = hits.numel(), 1.96
    p = float(hits.float().mean())
    centre, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return {"value": p, "low": low, "high": high, "n": n}


def psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """Decibels (N,) of pictures in [0, 1], 50 at most."""
    return -10 * (pictures - truth).square().mean((1, 2, 3)).clamp(min=1e-5).log10()


def autoencoder(vae: Any, images: Tensor, weights: Path) -> Figure:
    """PSNR of reconstructions, and how far they still show the same person (cosine of identity)."""
    decoded = torch.cat([reconstruct(vae, part) for part in images.split(50)])
    encoder = networks.load_identity_encoder(weights / "identity")
    match = (encoder(images) * encoder(decoded)).sum(-1)
    return {"psnr": mean(psnr(decoded, images)), "identity": mean(match)}


def restoration(images: Tensor, weights: Path) -> Figure:
    """PSNR of spoilt pictures, of what the network makes of them, and of clean ones it has seen."""
    network = networks.load_restoration(weights / "restoration")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spoilt = torch.cat([spoil(part) for part in images.split(16)])
    changed = (spoilt != images).flatten(1).any(1)
    spoilt, targets = spoilt[changed], images[changed]
    return {
        "spoilt": mean(psnr(spoilt, targets)),
        "restored": mean(psnr(network(spoilt), targets)),
        "clean": mean(psnr(network(images), images)),
    }


def reconstruct(vae: Any, images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] through the autoencoder's mean and back."""
    latents = vae.encode(images * 2 - 1).latent_dist.mode()
    return (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)


def sample(pipe: "StableDiffusionPipeline", prompts: list[str], seed: int = 0) -> Tensor:
    """One picture per prompt, float (N, 3, 64, 64) in [0, 1]."""
    generators = [torch.Generator().manual_seed(seed + number) for number in range(len(prompts))]
    parts = []
    for start in range(0, len(prompts), 20):
        part = slice(start, start + 20)
        result = pipe(
            prompts[part],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generators[part],
            output_type="pt",
        )
        parts.append(result.images)
    return torch.cat(parts).float()


def following(
    pipe: "StableDiffusionPipeline", captions: list[str], rows: Tensor, weights: Path
) -> Figure:
    """Per attribute, the share of samples in which the classifier finds what the caption said."""
    classifier = networks.load_attribute_classifier(weights / "attributes")
    logits = classifier(sample(pipe, captions))
    figures: Figure = {}
    for column, name in enumerate(ATTRIBUTES):
        if name == "noun":  # the full caption says "person"
            continue
        named = rows[:, column] != IGNORE
        figures[name] = share((logits[name].argmax(-1) == rows[:, column])[named])
    figures["mean"] = sum(figure["value"] for figure in figures.values()) / len(figures)
    return figures


def losses(
    pipe: "StableDiffusionPipeline", latents: Tensor, captions: list[str], timestep: int
) -> Tensor:
    """Squared error of the predicted noise per picture (N,), the same noise for every caption."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(timestep))
    steps = torch.full((len(latents),), timestep)
    noisy = pipe.scheduler.add_noise(latents, noise, steps)
    errors = []
    for start in range(0, len(latents), 50):
        part = slice(start, start + 50)
        tokens = pipe.tokenizer(
            captions[part], padding="max_length", truncation=True, return_tensors="pt"
        )
        states = pipe.text_encoder(tokens.input_ids)[0]
        predicted = pipe.unet(noisy[part], steps[part], states).sample
        errors.append((predicted - noise[part]).square().mean((1, 2, 3)))
    return torch.cat(errors)


def text_matters(
    pipe: "StableDiffusionPipeline", images: Tensor, people: list[world.Drawing]
) -> Figure:
    """Relative rise of the loss without the caption, with another's, and with one factor wrong."""
    latents = torch.cat(
        [pipe.vae.encode(part * 2 - 1).latent_dist.mode() for part in images.split(50)]
    )
    latents = latents * pipe.vae.config.scaling_factor
    captions = [person.caption for person in people]
    arms = {"null": [""] * len(captions), "shuffled": captions[1:] + captions[:1]}
    figures: Figure = {arm: {} for arm in arms} | {"one_factor_wrong_at_600": {}}
    for timestep in TIMESTEPS:
        right = losses(pipe, latents, captions, timestep)
        for arm, texts in arms.items():
            figures[arm][timestep] = rise(losses(pipe, latents, texts, timestep), right)
    right = losses(pipe, latents, captions, 600)
    for name, change in WRONG.items():
        texts = [change(person) for person in people]
        told = torch.tensor(
            [text != caption for text, caption in zip(texts, captions, strict=True)]
        )
        wrong = losses(pipe, latents, texts, 600)
        figures["one_factor_wrong_at_600"][name] = rise(wrong[told], right[told])
    return figures


def rise(wrong: Tensor, right: Tensor) -> Figure:
    """Mean difference of paired losses as a share of the right one, with a bootstrap interval."""
    return mean((wrong - right) / right.mean())


def _other(words: tuple[str, ...], word: str) -> str:
    return words[(words.index(word) + 1) % len(words)]


def _identity(field: str, words: tuple[str, ...]) -> Callable[[world.Drawing], str]:
    def change(person: world.Drawing) -> str:
        word = _other(words, getattr(person.identity, field))
        changes: dict[str, Any] = {field: word}
        return describe(replace(person.identity, **changes), person.scene)

    return change


def _scene(field: str, words: tuple[str, ...]) -> Callable[[world.Drawing], str]:
    def change(person: world.Drawing) -> str:
        word = _other(words, getattr(person.scene, field))
        changes: dict[str, Any] = {field: word}
        return describe(person.identity, replace(person.scene, **changes))

    return change


WRONG: dict[str, Callable[[world.Drawing], str]] = {
    "skin": _identity("skin", world.SKINS),
    "hair": _identity("hair", world.HAIRS),
    "style": _identity("style", world.STYLES),
    "shirt": _scene("shirt", world.SHIRTS),
    "expression": _scene("expression", world.EXPRESSIONS),
    "background": _scene("background", world.BACKGROUNDS),
}


def clip(images: Tensor, captions: list[str], rows: Tensor, weights: Path) -> Figure:
    """Retrieval of the full caption among 200 clean pictures, and quality without training."""
    from transformers import CLIPTokenizer

    model = networks.load_clip(weights / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(weights / "clip")

    def read(texts: list[str]) -> Tensor:
        ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        return F.normalize(model.get_text_features(input_ids=ids).pooler_output, dim=-1)

    pixels = images * 2 - 1
    seen = F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    clean = (rows[:, QUALITY] == 0).nonzero().flatten()[:200]
    texts = [captions[index] for index in clean.tolist()]
    best = (seen[clean] @ read(texts).T).argmax(-1).tolist()
    top1 = torch.tensor([texts[found] == text for found, text in zip(best, texts, strict=True)])
    words = read(["a photo of a person", "a noisy photo of a person", "a blurry photo of a person"])
    people = rows[:, 0] != IGNORE
    quality = (seen @ words.T).argmax(-1) == rows[:, QUALITY]
    figures = {f"quality_{name}": share(quality[people & (rows[:, QUALITY] == number)])
               for number, name in enumerate(ATTRIBUTES["quality"])}  # fmt: skip
    return {"retrieval_of_200": share(top1), **figures}


def measuring(images: Tensor, rows: Tensor, person: Tensor, weights: Path) -> Figure:
    """Identity: nearest picture among 200 people; attributes: accuracy on clean pictures."""
    encoder = networks.load_identity_encoder(weights / "identity")
    classifier = networks.load_attribute_classifier(weights / "attributes")
    clean = rows[:, QUALITY] == 0
    vectors, person = encoder(images[clean & (person < 200)]), person[clean & (person < 200)]
    cosines = vectors @ vectors.T
    same = (person[:, None] == person[None]).fill_diagonal_(False)
    other = person[:, None] != person[None]
    logits = classifier(images)
    accuracy = {}
    for column, name in enumerate(ATTRIBUTES):
        seen = rows[:, column] != IGNORE
        seen = seen if name == "quality" else seen & clean
        accuracy[name] = share((logits[name].argmax(-1) == rows[:, column])[seen])
    return {
        "identity_top1_of_200": share(nearest_is_same(vectors, person)),
        "identity_cosine_same": mean(cosines[same]),
        "identity_cosine_other": float(cosines[other].mean()),
        "attributes": accuracy,
    }


class PocketCard(Ranged, pl.LightningModule):
    """Runs every gate in one test step and writes the figures.

    Args:
        weights: Folder of the family.
        output: JSON file that receives the figures.
        samples: Number of pictures generated for caption following.
        pairs: Number of held-out pairs for the losses.
    """

    def __init__(
        self,
        weights: str = str(WEIGHTS),
        output: str = "runs/pocket/card.json",
        samples: Count = 200,
        pairs: Count = 400,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()

    @torch.inference_mode()
    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        from diffusers import StableDiffusionPipeline

        settings, weights = self.hparams, Path(self.hparams["weights"])
        pictures: Collection = self.trainer.datamodule.held_out  # type: ignore[attr-defined]
        images, rows, indices = batch[0].float() / 255, batch[1], batch[2]
        pipe = StableDiffusionPipeline.from_pretrained(weights)
        pipe.set_progress_bar_config(disable=True)
        clean = (rows[:, QUALITY] == 0).nonzero().flatten()
        seen, some = clean[: settings["samples"]], clean[: settings["pairs"]]
        people = [world.draw(pictures.seed, index, VIEWS) for index in some.tolist()]
        captions = [pictures.caption(index) for index in indices.tolist()]
        started, used = time.perf_counter(), time.process_time()
        sample(pipe, ["a photo of a person"] * 16)
        figures: Figure = {
            "seconds_for_16_samples_of_25_steps": time.perf_counter() - started,
            "processor_seconds_for_them": time.process_time() - used,
            "threads": torch.get_num_threads(),
            "autoencoder": autoencoder(pipe.vae, images[some], weights),
            "restoration": restoration(images[some], weights),
            "measuring": measuring(images, rows, indices // VIEWS, weights),
            "clip": clip(images, captions, rows, weights),
            "text_matters": text_matters(pipe, images[some], people),
            "following": following(pipe, [captions[i] for i in seen.tolist()], rows[seen], weights),
        }
        path = Path(settings["output"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")
        self.log("card/following", figures["following"]["mean"])
        self.log("card/psnr", figures["autoencoder"]["psnr"]["value"])
