"""The recipes in miniature: two steps each, ending in folders that the ordinary calls load."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from shortcut_lightning.pocket import world
from shortcut_lightning.pocket.autoencoder import AutoencoderTraining
from shortcut_lightning.pocket.clip import ClipTraining
from shortcut_lightning.pocket.data import VIEWS, PeopleTogether, WorldDataModule
from shortcut_lightning.pocket.flow import FlowTraining, plain_attention, shifted
from shortcut_lightning.pocket.latents import LatentDataModule
from shortcut_lightning.pocket.measuring import AttributeTraining, IdentityTraining
from shortcut_lightning.pocket.restoration import RestorationTraining
from shortcut_lightning.pocket.schedule import warm_flat_fall
from shortcut_lightning.pocket.text_to_image import (
    TextToImageTraining,
    WordTraining,
    feature_weights,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pocket")


def train(model: pl.LightningModule, data: pl.LightningDataModule, folder: Path) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=2,
        limit_val_batches=1,
        val_check_interval=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model, data)
    return trainer


def settings(cache: Path) -> dict[str, Any]:
    return {"cache_dir": str(cache), "count": 16, "held_out": 8, "batch_size": 8, "seed": 5}


def test_the_family_is_trained_in_order_and_loads(cache: Path) -> None:
    from diffusers import StableDiffusionPipeline

    output = str(cache / "weights")
    train(AutoencoderTraining(output=output), WorldDataModule(**settings(cache)), cache)
    train(WordTraining(output=output), WorldDataModule(**settings(cache)), cache)
    data = LatentDataModule(autoencoder=f"{output}/vae", **settings(cache))
    start = f"{output}/text_encoder"
    trainer = train(TextToImageTraining(text_encoder=start, output=output), data, cache)
    assert {"val/loss600", "val/loss600_null"} <= set(trainer.callback_metrics)
    pipe = StableDiffusionPipeline.from_pretrained(output)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a photo", num_inference_steps=1, output_type="pt").images
    assert torch.isfinite(picture).all()
    latents = torch.stack([latent for latent, *_ in (data.training[i] for i in range(8))])
    assert latents.shape == (8, 8, 16, 16)


def test_a_small_v_prediction_variant_is_trained_and_loads(cache: Path) -> None:
    from shortcut_lightning import backbones

    output = str(cache / "v")
    train(AutoencoderTraining(output=output), WorldDataModule(**settings(cache)), cache)
    data = LatentDataModule(autoencoder=f"{output}/vae", **settings(cache))
    kind: dict[str, Any] = {"widths": (16, 32), "prediction_type": "v_prediction"}
    weighted = {"word_weight": 0.1, "feature_weight": 4.0}
    model = TextToImageTraining(**kind, **weighted, output=output)
    train(model, data, cache)
    assert backbones.load(output).prediction_type == "v_prediction"

    # A network that answers with the true v has no error.
    latents, noise = torch.randn(2, 2, 4, 16, 16)
    timesteps = torch.tensor([10, 900])
    alpha = model.alphas[timesteps][:, None, None, None]
    truth = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    model.unet.forward = lambda *_: SimpleNamespace(sample=truth)
    assert model.errors(latents, torch.zeros(2, 1, 128), timesteps, noise).max() < 1e-9


def test_the_flow_family_is_trained_in_order_and_loads(cache: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    output = str(cache / "flow")
    autoencoder = AutoencoderTraining(latent_channels=8, shift=True, output=output)
    train(autoencoder, WorldDataModule(**settings(cache)), cache)
    data = LatentDataModule(autoencoder=f"{output}/vae", **settings(cache))
    model = FlowTraining(output=output)
    trainer = train(model, data, cache)
    assert {"val/loss07", "val/loss07_null"} <= set(trainer.callback_metrics)
    latents = torch.stack([latent for latent, *_ in (data.training[i] for i in range(16))])
    assert latents.shape == (16, 16, 16, 16)
    assert abs(float(latents[:, :8].float().mean())) < 0.2  # shifted to mean zero
    pipe = StableDiffusion3Pipeline.from_pretrained(output, text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)
    asked = {"num_inference_steps": 1, "max_sequence_length": 0, "height": 64, "width": 64}
    picture = pipe("a photo", output_type="pt", **asked).images
    assert torch.isfinite(picture).all()
    # The pipeline's own embedding of a prompt is what the transformer was trained with.
    hidden, _, pooled, _ = pipe.encode_prompt(
        "a photo", None, None, max_sequence_length=0, do_classifier_free_guidance=False
    )
    with torch.no_grad():
        own = model.float().eval().embedded(["a photo"])
    torch.testing.assert_close(hidden, own[0], rtol=1e-2, atol=1e-2)  # halves on disk
    torch.testing.assert_close(pooled, own[1], rtol=1e-2, atol=1e-2)


def test_a_flow_that_answers_with_the_velocity_has_no_error() -> None:
    model = FlowTraining(output=None)
    latents, noise = torch.randn(2, 2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    model.transformer.forward = lambda *_: SimpleNamespace(sample=noise - latents)
    text = (torch.zeros(2, 1, 192), torch.zeros(2, 192))
    assert model.errors(latents, text, torch.tensor([0.1, 0.9]), noise).max() == 0
    shares = model.drawn(torch.zeros(4000, 8, 1, 1))
    assert ((shares > 0) & (shares < 1)).all()
    assert shifted(torch.tensor(0.5)).item() == pytest.approx(0.6)
    assert shares.median().item() == pytest.approx(0.6, abs=0.01)


def test_plain_attention_is_attention() -> None:
    query, key, value = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    with plain_attention():
        plain = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(plain, fused)


def test_eyes_and_mouth_count_more_and_every_picture_the_same(cache: Path) -> None:
    data = WorldDataModule(**settings(cache))
    data.prepare_data()
    latents = torch.zeros(16, 4, 16, 16)
    weights = feature_weights(data.training, torch.arange(16), latents, 4.0)
    assert weights.shape == (16, 1, 16, 16)
    assert torch.allclose(weights.mean((1, 2, 3)), torch.ones(16))
    drawing = world.draw(5, 0, VIEWS)
    left, top, right, bottom = drawing.boxes["mouth"]
    column, row = int((left + right) * 8), int((top + bottom) * 8)
    assert weights[0, 0, row, column] == weights[0].max() > weights[0, 0, 0, 0]
    assert weights[0].max() / weights[0].min() == pytest.approx(5)


@pytest.mark.slow
def test_one_command_rebuilds_the_family(tmp_path: Path) -> None:
    small = ["--data.count=16", "--data.held_out=8", "--data.batch_size=8"]
    once = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"]
    once += ["--trainer.max_steps=2", "--trainer.val_check_interval=2"]
    cache = f"--data.cache_dir={tmp_path}"
    card = f"--data.held_out=24 --data.batch_size=24 {cache} --model.samples=2 --model.pairs=4"
    out = tmp_path / "weights"
    command = ["sh", "configs/pocket/rebuild.sh", str(out), *small, *once, cache]
    command += [f"--trainer.default_root_dir={tmp_path}"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CARD_OPTIONS": card}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=900)
    figures = json.loads((out / "card.json").read_text())
    assert set(figures) >= {"autoencoder", "measuring", "clip", "text_matters", "following"}
    assert (out / "unet" / "diffusion_pytorch_model.safetensors").exists()


@pytest.mark.parametrize(
    "kind", [IdentityTraining, AttributeTraining, ClipTraining, RestorationTraining]
)
def test_measuring_networks_train_and_save(kind: type[Any], cache: Path) -> None:
    model = kind(output=str(cache / "weights"))
    together = kind is IdentityTraining
    data = WorldDataModule(**settings(cache), people_together=together)
    trainer = train(model, data, cache)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    name = getattr(model, "name", "clip")
    assert (cache / "weights" / name / "model.safetensors").exists()


def test_pictures_are_drawn_once_and_both_seeds_differ(cache: Path) -> None:
    data = WorldDataModule(**settings(cache))
    data.prepare_data()
    stamp = {path: path.stat().st_mtime_ns for path in cache.glob("*.images.npy")}
    data.prepare_data()
    assert stamp == {path: path.stat().st_mtime_ns for path in cache.glob("*.images.npy")}
    assert not torch.equal(data.training[0][0], data.held_out[0][0])


def test_people_come_together() -> None:
    batches = list(PeopleTogether(64, 16))
    assert len(batches) == 4
    assert all(len({index // VIEWS for index in batch}) == 4 for batch in batches)
    assert sorted(index for batch in batches for index in batch) == list(range(64))


def test_learning_rate_rises_stays_and_falls() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule = warm_flat_fall(optimizer, total=100, warm=10)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert rates[30] == 1
    assert rates[99] < 0.05
