"""The adapted autoencoder: python -m pytest tests/modules/test_cat.py"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from shortcut_lightning import backbones, draws
from shortcut_lightning.batch import PromptBatch
from shortcut_lightning.data import PersonalizationDataModule, SeveralSubjects
from shortcut_lightning.data.settings import Copy, Passes
from shortcut_lightning.files.images import save_image
from shortcut_lightning.modules import CAT
from shortcut_lightning.modules.cat import ADAPTED, autoencoder_layers
from shortcut_lightning.modules.settings import Sampling
from shortcut_lightning.purifiers import Jpeg

IMAGES = torch.randint(256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 255


def module(folder: Path, **options: Any) -> CAT:
    return CAT(**{"vae_rank": 3, "vae_steps": 4, "vae_learning_rate": 1e-3, "vae_batch_size": 2}
        | options, pretrained_model_name_or_path=str(folder),
        sampling=Sampling(num_inference_steps=2))  # fmt: skip


@pytest.mark.parametrize("part", ["both", "encoder", "decoder"])
def test_the_layers_are_those_of_the_published_adapters(part: str, small_sd: Path) -> None:
    """As peft chooses them by the published settings."""
    vae = backbones.load(str(small_sd)).vae
    pattern = rf".*{part}.*(conv|conv1|conv2|to_q|to_k|to_v|to_out\.0)$"
    targets = list(ADAPTED) if part == "both" else pattern
    inject_adapter_in_model(LoraConfig(r=2, target_modules=targets), vae)
    expected = {n.removesuffix(".lora_A") for n, _ in vae.named_modules() if n.endswith("lora_A")}
    found = dict(autoencoder_layers(module(small_sd).backbone, part))
    assert {name.removeprefix("vae.") for name in found} == expected


def test_training_is_that_of_adapters_on_the_squared_error(small_sd: Path) -> None:
    """Against peft's LoRA with the same beginning and draws."""
    ours = module(small_sd)
    losses = ours.adapt(IMAGES)
    model = backbones.load(str(small_sd)).requires_grad_(False)
    config = LoraConfig(r=3, lora_alpha=3, target_modules=list(ADAPTED))
    inject_adapter_in_model(config, model.vae)
    chance = draws.generator(ours.seed, "cat", 0)
    layers = [m for m in model.vae.modules() if hasattr(m, "lora_A")]
    parameters = []
    for layer in layers:
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        down.data = (torch.randn(3, down[0].numel(), generator=chance) / 3).view_as(down)
        up.data.zero_()
        parameters += [down, up]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    expected = []
    for _ in range(4):
        x = 2 * IMAGES[torch.randint(3, (2,), generator=chance)] - 1
        posterior = model.vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=chance)
        made = model.vae.decode(posterior.mean + posterior.std * noise).sample.clamp(-1, 1)
        loss = torch.nn.functional.mse_loss(made, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        theirs = model.encode(IMAGES).mean
    torch.testing.assert_close(ours.backbone.encode(IMAGES).mean, theirs, rtol=1e-3, atol=1e-4)


def test_it_reproduces_what_it_learnt(small_sd: Path) -> None:
    ours = module(small_sd, vae_steps=40, vae_rank=16, vae_learning_rate=3e-3, vae_batch_size=3)

    def error() -> float:
        with torch.no_grad():
            return float(ours.reproduction(IMAGES, torch.Generator().manual_seed(1)))

    before = error()
    ours.adapt(IMAGES)
    assert error() < 0.8 * before


def given(photos: Path, **options: Any) -> PersonalizationDataModule:
    return PersonalizationDataModule(
        str(photos), "a photo of sks dog", train_batch_size=1, **options
    )


def fitted(
    model: CAT, photos: Path, folder: Path, steps: int, data: Any = None, **fit: Any
) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(model, data or given(photos), **fit)
    return trainer


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, image in enumerate(IMAGES):
        (tmp_path / "photos").mkdir(exist_ok=True)
        save_image(image, tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def latents(model: CAT) -> Tensor:
    with torch.no_grad():
        return model.backbone.encode(IMAGES).mean


def test_a_run_keeps_the_autoencoder_and_exports_it(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    first = module(small_sd)
    trainer = fitted(first, photos, tmp_path, 1)
    assert not torch.allclose(latents(first), latents(module(small_sd)), atol=1e-4)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed = module(small_sd, vae_steps=1)  # not adapted again
    fitted(resumed, photos, tmp_path, 2, ckpt_path=str(tmp_path / "one.ckpt"))
    assert torch.equal(latents(resumed), latents(first))
    first.backbone.save(tmp_path / "exported")
    stock = backbones.load(str(tmp_path / "exported"))
    with torch.no_grad():
        torch.testing.assert_close(stock.encode(IMAGES).mean, latents(first))


def test_pictures_in_buckets_are_learnt_at_one_size(small_sd: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, size in enumerate([(32, 32), (64, 32)]):
        picture = torch.rand(3, *size, generator=torch.Generator().manual_seed(number))
        save_image(picture, tmp_path / "photos" / f"{number}.png")
    ours, seen = module(small_sd, vae_batch_size=1), []
    ours.adapt = seen.append  # type: ignore[method-assign, assignment]
    data = given(tmp_path / "photos", bucketing=True)
    fitted(ours, tmp_path / "photos", tmp_path, 1, data)
    assert len(data.buckets) == 2
    first, second = (each.image for each in data.trained_on)
    side = max(min(each.shape[-2:]) for each in (first, second))
    assert seen[0].shape == (2, 3, side, side)
    assert any(torch.equal(each, first) for each in seen[0])  # the largest is as it was


def test_further_copies_are_learnt_too(small_sd: Path, photos: Path, tmp_path: Path) -> None:
    ours, seen = module(small_sd), []
    ours.adapt = seen.append  # type: ignore[method-assign, assignment]
    data = given(photos, purifiers=[Jpeg(20)], training=Passes(copies=[Copy()]))
    fitted(ours, photos, tmp_path, 1, data)
    expected = torch.stack([each.image for each in data.trained_on + data.published])
    assert not torch.equal(expected[:3], expected[3:])
    assert torch.equal(seen[0], expected)


def test_a_process_whose_state_is_empty_writes_none_of_it(small_sd: Path) -> None:
    """As all but the first have it where weights are in shards."""
    ours = module(small_sd)
    ours.adapted = True
    empty: dict[str, Any] = {"state_dict": {}}
    ours.on_save_checkpoint(empty)
    assert empty["state_dict"] == {}
    full: dict[str, Any] = {"state_dict": ours.state_dict()}
    ours.on_save_checkpoint(full)
    assert full["state_dict"].keys() >= set(ours._names())


@pytest.mark.parametrize("method", ["lora", "lokr"])
def test_the_base_arm_has_the_untouched_autoencoder(method: str, small_sd: Path) -> None:
    ours = module(small_sd, method=method)
    ask = PromptBatch(["a photo"], [""], torch.tensor([1]), torch.tensor([0]), "base")
    untouched = ours.sample(ask._replace(arm="tuned"))
    ours.adapt(IMAGES)
    assert torch.equal(ours.sample(ask), untouched)
    assert not torch.equal(ours.sample(ask._replace(arm="tuned")), untouched)


def test_cached_latents_and_several_subjects_are_refused(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"set data\.cache_latents to false"):
        fitted(module(small_sd), photos, tmp_path, 1, given(photos, cache_latents=True))
    several = SeveralSubjects({"a": given(photos)})
    with pytest.raises(ValueError, match=r"one PersonalizationDataModule; .* a SeveralSubjects\."):
        fitted(module(small_sd), photos, tmp_path, 1, several)
