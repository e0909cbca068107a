"""One step against the method's naive form, and what may learn: python -m pytest tests/modules."""

import math
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.batch import Contrast, PromptBatch, TrainBatch
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import AdamSettings, AdapterShape, Compute, Sampling

PROMPTS = ["a photo of sks dog <s>", "a photo of dog"]


def batch(step: int = 0, size: int = 32) -> TrainBatch:
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    return TrainBatch(images, PROMPTS, torch.tensor([False, True]), torch.tensor([step, -1 - step]))


def fit(module: DreamBooth, folder: Path, steps: int = 2, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    data: Any = [batch(step) for step in range(steps)]
    loader = torch.utils.data.DataLoader(data, batch_size=None, collate_fn=lambda item: item)
    trainer.fit(module, loader)
    return trainer


def test_the_step_is_the_method(small_sd: Path) -> None:
    """Against DreamBooth written out with diffusers' own scheduler, one image at a time."""
    module = DreamBooth(str(small_sd), prior_loss_weight=0.7)
    pipeline = module.backbone.pipeline()  # type: ignore[operator]
    scheduler = DDPMScheduler.from_pretrained(small_sd, subfolder="scheduler")
    data = batch(step=4)
    errors = []
    for row in range(2):
        number = data.draws[row : row + 1]
        posterior = pipeline.vae.encode(data.images[row : row + 1] * 2 - 1).latent_dist
        z = posterior.mean + posterior.std * draws.normal((4, 8, 8), 0, "posterior", number)
        z = z * 0.18215
        noise = draws.normal((4, 8, 8), 0, "noise", number)
        t = draws.timesteps(1000, 0, "timestep", number)
        ids = pipeline.tokenizer(
            PROMPTS[row], padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids
        words = pipeline.text_encoder(ids)[0]
        predicted = pipeline.unet(scheduler.add_noise(z, noise, t), t, words).sample
        errors.append(((predicted - noise) ** 2).mean())
    expected = errors[0] + 0.7 * errors[1]
    torch.testing.assert_close(module(data)["loss"], expected, rtol=1e-4, atol=1e-6)


def test_the_contrast_compares_words_on_the_same_noise(small_sd: Path) -> None:
    module = DreamBooth(str(small_sd))
    data = batch(step=4)

    def errors(prompts: list[str]) -> list[float]:
        said = [data._replace(prompts=[prompt] * 2) for prompt in prompts]
        return [
            module(each)[name].item()
            for each, name in zip(said, ("loss_instance", "loss_prior"), strict=True)
        ]

    other = ["a photo of sks dog", "a photo of noisy dog"]
    terms = [
        0.05 * math.log1p(math.exp((right - wrong) / 0.05))
        for right, wrong in zip(errors(PROMPTS), errors(other), strict=True)
    ]
    losses = module(data._replace(contrast=Contrast(other, weight=0.3, margin=0.05)))
    assert losses["loss_contrast"].item() == pytest.approx(sum(terms) / 2, rel=1e-4)
    plain = module(data)["loss"]
    torch.testing.assert_close(losses["loss"], plain + 0.3 * losses["loss_contrast"])


def test_cached_moments_and_embeddings_give_the_same_loss(small_sd: Path) -> None:
    module = DreamBooth(str(small_sd))
    data = batch()
    posterior = module.backbone.encode(data.images)
    moments = torch.stack([posterior.mean, posterior.std], dim=1)
    cached = DreamBooth(str(small_sd), compute=Compute(cache_text_embeddings=True))
    expected = module(data)["loss"]
    for _ in range(2):  # filling the cache, then using it
        loss = cached(data._replace(images=torch.empty(2, 0), moments=moments))["loss"]
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("options", "learned"),
    [
        ({}, {"unet"}),
        ({"train_text_encoder": True}, {"unet", "text_encoder"}),
        ({"method": "lora", "rank": 2}, {"unet"}),
        (
            {"method": "lora", "adapter": AdapterShape(dora=True), "train_text_encoder": True},
            {"unet", "text_encoder"},
        ),
        ({"train_unet": False, "new_tokens": ["<s>"]}, {"text_encoder"}),
    ],
)
def test_only_what_is_chosen_learns(
    options: dict[str, Any], learned: set[str], small_sd: Path, tmp_path: Path
) -> None:
    module = DreamBooth(str(small_sd), learning_rate=1e-2, **options)
    before = {name: p.detach().clone() for name, p in module.backbone.named_parameters()}
    fit(module, tmp_path, steps=3, enable_checkpointing=False)
    moved = {n for n, p in module.backbone.named_parameters() if not torch.equal(p, before[n])}
    free = {name for name, p in module.backbone.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in moved} == learned
    assert moved <= free
    if options.get("method") == "lora":
        assert all("lora_" in name for name in moved)


def test_a_checkpoint_holds_what_learns_and_nothing_else(small_sd: Path, tmp_path: Path) -> None:
    module = DreamBooth(str(small_sd), method="lora", rank=2)
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    state = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    assert state
    assert all("lora_" in name for name in state)
    other = DreamBooth(str(small_sd), method="lora", rank=4)
    with pytest.raises(ValueError, match=r"first differ at '.*lora_.*config\.yaml"):
        pl.Trainer(accelerator="cpu", logger=False).test(
            other, [batch()], ckpt_path=tmp_path / "run.ckpt", verbose=False
        )


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precisions_and_gradient_checkpointing(
    precision: Any, small_sd: Path, tmp_path: Path
) -> None:
    module = DreamBooth(
        str(small_sd), compute=Compute(gradient_checkpointing=True), train_text_encoder=True
    )
    trainer = fit(module, tmp_path, precision=precision, enable_checkpointing=False)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_gradients_are_clipped_in_either_precision(
    precision: Any, small_sd: Path, tmp_path: Path
) -> None:
    class Norm(pl.Callback):
        seen = 0.0

        def on_fit_start(self, trainer: Any, module: Any) -> None:
            for optimizer in trainer.optimizers:  # before the gradients go with the step
                optimizer.register_step_post_hook(self.look)

        def look(self, optimizer: Any, *rest: Any) -> None:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            self.seen = max(
                self.seen, float(torch.nn.utils.get_total_norm(g for g in grads if g is not None))
            )

    def norm(clip: float | None) -> float:
        watch = Norm()
        options: Any = {"precision": precision, "enable_checkpointing": False}
        fit(
            DreamBooth(str(small_sd)),
            tmp_path,
            gradient_clip_val=clip,
            callbacks=[watch],
            **options,
        )
        return watch.seen

    assert norm(None) > 0.01
    assert norm(0.01) == pytest.approx(0.01, rel=0.02)


def test_gradient_checkpointing_changes_no_gradient(small_sd: Path) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        module = DreamBooth(
            str(small_sd),
            train_text_encoder=True,
            compute=Compute(gradient_checkpointing=checkpointing),
        )
        module(batch())["loss"].backward()
        return [p.grad for p in module.parameters() if p.grad is not None]

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_the_loss_falls_on_velocity_models_too(small_sd_v: Path, tmp_path: Path) -> None:
    module = DreamBooth(str(small_sd_v), learning_rate=3e-3, snr_gamma=5.0, noise_offset=0.05)
    probe = batch(step=0)
    with torch.no_grad():
        before = module(probe)["loss"].item()
    fit(module, tmp_path, steps=40, enable_checkpointing=False)
    with torch.no_grad():
        assert module(probe)["loss"].item() < before


def test_the_base_arm_is_the_untouched_model(small_sd: Path, tmp_path: Path) -> None:
    module = DreamBooth(str(small_sd), learning_rate=1e-2, sampling=Sampling(num_inference_steps=2))
    ask = PromptBatch(PROMPTS, ["", ""], torch.tensor([1, 2]), torch.tensor([0, 1]), "base")
    before = module.sample(ask._replace(arm="tuned"))
    fit(module, tmp_path, enable_checkpointing=False)
    torch.testing.assert_close(module.sample(ask), before)
    assert (module.sample(ask._replace(arm="tuned")) - before).abs().max() > 1e-4
    assert not any("_base" in name for name in module.state_dict())


@pytest.mark.parametrize("folder", ["small_sd", "small_sdxl"])
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_step_aside_for_the_base_arm(
    folder: str, dora: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """No second model is loaded; and the run goes on learning afterwards."""
    module = DreamBooth(
        str(request.getfixturevalue(folder)),
        **{"method": "lora", "train_text_encoder": True, "adapter": AdapterShape(dora=dora)},
        **{"learning_rate": 1e-2, "sampling": Sampling(num_inference_steps=2)},
    )
    ask = PromptBatch(PROMPTS, ["", ""], torch.tensor([1, 2]), torch.tensor([0, 1]), "base")
    before = module.sample(ask._replace(arm="tuned"))
    learned = {name for name, p in module.named_parameters() if p.requires_grad}
    fit(module, tmp_path, enable_checkpointing=False)
    with torch.inference_mode():
        base = module.sample(ask)
        tuned = module.sample(ask._replace(arm="tuned"))
    torch.testing.assert_close(base, before)
    assert (tuned - before).abs().max() > 1e-4
    assert not module._base
    assert {name for name, p in module.named_parameters() if p.requires_grad} == learned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_unet": False}, r"Nothing to train: set model.train_unet"),
        (
            {"new_tokens": ["<s>"], "token_initializers": ["a", "dog"]},
            r"2 model.token_initializers",
        ),
        (
            {"compute": Compute(cache_text_embeddings=True), "train_text_encoder": True},
            r"Set model.compute.cache_text_embeddings to false",
        ),
        ({"rank": 0}, r"DreamBooth.rank is 0; it must be from 1 to"),
        ({"snr_gamma": -5.0}, r"DreamBooth.snr_gamma is -5; it must be at least 0"),
        ({"sampling": Sampling(scheduler="DDIM")}, r"'DDIM'; allowed: .*DDIMScheduler"),
        ({"lora": "nowhere.safetensors"}, r"No LoRA at 'nowhere.safetensors'"),
        ({"embeddings": ["nowhere.safetensors"]}, r"No textual-inversion file at"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str, small_sd: Path) -> None:
    with pytest.raises(ValueError, match=message):
        DreamBooth(str(small_sd), **options)


def test_eight_bit_adam_asks_for_its_extra(
    small_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"shortcut-lightning\[gpu\]"):
        fit(DreamBooth(str(small_sd), adam=AdamSettings(eight_bit=True)), tmp_path)


def test_eight_bit_adam_learns(small_sd: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra gpu is not installed")
    module = DreamBooth(str(small_sd), adam=AdamSettings(eight_bit=True), learning_rate=1e-3)
    before = {name: each.clone() for name, each in module.named_parameters() if each.requires_grad}
    trainer = fit(module, tmp_path)
    assert type(trainer.optimizers[0]).__name__ == "AdamW8bit"
    changed = [
        n for n, each in module.named_parameters() if n in before and each.ne(before[n]).any()
    ]
    assert changed
    assert all(torch.isfinite(each).all() for each in module.parameters())
