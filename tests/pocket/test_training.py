"""The recipes in miniature: two steps each, ending in folders that the ordinary calls load."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from shortcut_lightning.pocket.autoencoder import AutoencoderTraining
from shortcut_lightning.pocket.clip import ClipTraining
from shortcut_lightning.pocket.data import VIEWS, PeopleTogether, WorldDataModule
from shortcut_lightning.pocket.latents import LatentDataModule
from shortcut_lightning.pocket.measuring import AttributeTraining, IdentityTraining
from shortcut_lightning.pocket.restoration import RestorationTraining
from shortcut_lightning.pocket.schedule import warm_flat_fall
from shortcut_lightning.pocket.text_to_image import TextToImageTraining, WordTraining


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
