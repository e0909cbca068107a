"""APDM beside its loops written out: python -m pytest tests/modules/test_anti_personalization.py"""

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from shortcut_lightning import backbones, draws
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.modules import AntiPersonalization

RATE, INNER_RATE, BETA, PRIOR = 1e-3, 2e-3, 3.0, 0.7


def batches(count: int) -> list[TrainBatch]:
    """Two pictures of the subject and two of the class in each."""
    made = []
    for number in range(count):
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        prompts = ["a photo of sks dog"] * 2 + ["a photo of dog"] * 2
        numbers = torch.arange(4) + 4 * number
        made.append(TrainBatch(images, prompts, torch.tensor([False, False, True, True]), numbers))
    return made


def module(folder: Path, **options: Any) -> AntiPersonalization:
    return AntiPersonalization(
        **{"inner_steps": 2, "inner_learning_rate": INNER_RATE, "beta": BETA} | options,
        learning_rate=RATE,
        prior_loss_weight=PRIOR,
        pretrained_model_name_or_path=str(folder),
    )


class Cut(pl.Callback):
    """Saves after the third batch, the first of the second copy."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready == 3:
            trainer.save_checkpoint(self.path)


def fit(model: pl.LightningModule, given: list[TrainBatch], steps: int, **more: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    trainer.fit(model, DataLoader(given, batch_size=None))
    return trainer


def published(
    folder: Path, given: list[TrainBatch], elementwise: bool, leak: bool
) -> dict[str, Tensor]:
    """Two loops around plain autograd; the draws are those of the package."""
    model = backbones.load(str(folder)).requires_grad_(False)
    seed, reference = draws.run_seed(), copy.deepcopy(model.unet)
    model.unet.requires_grad_(True)
    outer = torch.optim.AdamW(model.unet.parameters(), lr=RATE)
    words = model.embed(["a photo of sks dog"] * 2 + ["a photo of dog"] * 2).hidden

    def step_of(name: str, numbers: list[int]) -> Tensor:
        rows = [model.draw_timesteps(1, draws.generator(seed, name, n)) for n in numbers]
        return torch.cat(rows)

    for start in range(0, len(given), 2):
        temporary = copy.deepcopy(model.unet)
        inner = torch.optim.AdamW(temporary.parameters(), lr=INNER_RATE)
        outer.zero_grad()
        for batch in given[start : start + 2]:
            posterior = model.encode(batch.images)
            shape = posterior.mean.shape[1:]
            z = posterior.sample(draws.normal(shape, seed, "posterior", batch.draws))
            e = draws.normal(shape, seed, "noise", batch.draws)
            t = step_of("timestep", batch.draws.tolist())
            out = temporary(model.add_noise(z, e, t), t, words, return_dict=False)[0]
            inner.zero_grad()
            (
                functional.mse_loss(out[:2], e[:2]) + PRIOR * functional.mse_loss(out[2:], e[2:])
            ).backward()
            inner.step()
            if not leak:
                temporary.zero_grad()
            e = draws.normal(shape, seed, "protection noise", batch.draws[:2])
            t = step_of("protection step", batch.draws[:2].tolist())

            def error(network: Any, clean: Tensor) -> Tensor:
                out = network(model.add_noise(clean, e, t), t, words[:2], return_dict=False)[0]  # noqa: B023
                apart = (e - out) ** 2  # noqa: B023
                return apart if elementwise else apart.flatten(1).mean(1)

            with torch.no_grad():
                old = error(reference, z[2:]), error(reference, z[:2])
            d = (error(temporary, z[2:]) - old[0]) - (error(temporary, z[:2]) - old[1])
            loss = -functional.logsigmoid(-BETA * d).mean()
            out = temporary(model.add_noise(z[2:], e, t), t, words[2:], return_dict=False)[0]
            (loss + PRIOR * functional.mse_loss(out, e)).backward()
            for own, its in zip(model.unet.parameters(), temporary.parameters(), strict=True):
                own.grad = its.grad.clone() if own.grad is None else own.grad + its.grad
        outer.step()
    return model.unet.state_dict()


@pytest.mark.parametrize(("elementwise", "leak"), [(False, False), (True, False), (False, True)])
def test_against_the_loops_written_out(elementwise: bool, leak: bool, small_sd: Path) -> None:
    pl.seed_everything(7, verbose=False)
    given, model = batches(4), module(small_sd, elementwise=elementwise, leak=leak)
    trainer = fit(model, given, 2)
    assert trainer.global_step == 2
    before = backbones.load(str(small_sd)).unet.state_dict()
    expected, found = (
        published(small_sd, given, elementwise, leak),
        model.backbone.unet.state_dict(),
    )
    apart = torch.cat([(found[n] - expected[n]).flatten() for n in expected]).abs()
    moved = torch.cat([(before[n] - expected[n]).flatten() for n in expected]).abs()
    assert apart.mean() < 0.02 * moved.mean()
    assert moved.mean() > 1e-4


def test_the_text_encoder_and_the_copy_s_source_stay(small_sd: Path) -> None:
    model = module(small_sd)
    words = copy.deepcopy(model.backbone.text_encoder.state_dict())
    fit(model, batches(2), 1)
    after = model.backbone.text_encoder.state_dict()
    assert all(torch.equal(words[name], after[name]) for name in words)
    assert not any("copy" in name or "reference" in name for name in model.state_dict())
    assert not model._copy


def test_a_run_cut_among_the_copy_s_steps_goes_on_to_the_same_weights(
    small_sd: Path, tmp_path: Path
) -> None:
    pl.seed_everything(7, verbose=False)
    given = batches(4)
    whole = module(small_sd)
    fit(whole, given, 2)
    cut = Cut(tmp_path / "cut.ckpt")
    fit(module(small_sd), given, 2, callbacks=[cut])
    saved = torch.load(tmp_path / "cut.ckpt", weights_only=True)
    assert saved["copy"]["steps"] == 1
    resumed = module(small_sd)
    resumed.on_load_checkpoint(copy.deepcopy(saved))
    resumed.load_state_dict(saved["state_dict"], strict=False)
    optimizer = resumed_optimizer(resumed, saved)
    resumed.optimizers = lambda: optimizer  # type: ignore[method-assign]
    resumed.lr_schedulers = lambda: None  # type: ignore[method-assign]
    resumed.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    resumed.training_step(given[3], 0)
    for name, value in whole.backbone.unet.state_dict().items():
        torch.testing.assert_close(resumed.backbone.unet.state_dict()[name], value)


def resumed_optimizer(model: AntiPersonalization, saved: dict[str, Any]) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.backbone.unet.parameters(), lr=RATE, fused=True)
    optimizer.load_state_dict(saved["optimizer_states"][0])
    return optimizer


def test_what_it_cannot_do_is_said(small_sd: Path) -> None:
    with pytest.raises(ValueError, match=r"set model\.method to 'full'"):
        AntiPersonalization(method="lora")
    alone = [TrainBatch(*(part[:2] for part in batches(1)[0][:4]))]
    with pytest.raises(ValueError, match=r"set data\.with_prior_preservation to true"):
        fit(module(small_sd), alone, 1)
    for setting in ({"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}):
        with pytest.raises(ValueError, match=rf"set trainer\.{next(iter(setting))} to"):
            fit(module(small_sd), batches(1), 1, **setting)
