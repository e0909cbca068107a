"""Optimisers and schedules by class, each resumed to the same bits:
python -m pytest tests/modules/test_named_optimizers.py"""

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from test_exact_runs import learned, parts, trainer

from shortcut_lightning.callbacks.ema import EMA
from shortcut_lightning.callbacks.sample_grid import SampleGrid
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.optimizers import Named
from shortcut_lightning.modules.settings import AdamSettings

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("torch.optim.SGD", {"momentum": 0.9}),
    ("torch.optim.Adafactor", {}),
    ("transformers.Adafactor", {"relative_step": False}),
    ("bitsandbytes.optim.AdamW8bit", {"min_8bit_size": 64}),
    ("lion_pytorch.Lion", {"weight_decay": 0.1}),
    ("prodigyopt.Prodigy", {"d0": 1e-4}),
    ("schedulefree.AdamWScheduleFree", {"warmup_steps": 2}),
]
FREE = "schedulefree.AdamWScheduleFree"


def optimizer(path: str, **arguments: Any) -> Named:
    pytest.importorskip(path.partition(".")[0], reason="the package of an extra")
    return Named(resolve_name(path), arguments)


def module_and_data(model: Path, folder: Path, chosen: Named, **options: Any) -> tuple[Any, Any]:
    module, data = parts(model, folder, **options)
    module.choose(chosen)
    return module, data


@pytest.mark.parametrize(("path", "arguments"), OPTIMIZERS)
def test_each_learns_and_resumes_to_the_same_bits(
    path: str, arguments: dict[str, Any], small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    chosen = optimizer(path, **arguments)
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    options = {"method": "lora", "rank": 2, "train_text_encoder": True}
    module, data = module_and_data(small_sd, photos, chosen, **options)
    start = learned(module)
    run = trainer(tmp_path, 5, saver)
    run.fit(module, data)
    assert type(run.optimizers[0]) is chosen.cls
    whole = learned(module)
    assert any(not torch.equal(value, start[name]) for name, value in whole.items())
    for step in (2, 4):
        module, data = module_and_data(small_sd, photos, chosen, **options)
        trainer(tmp_path, 5).fit(module, data, ckpt_path=tmp_path / f"step={step}.ckpt")
        for name, value in learned(module).items():
            assert torch.equal(value, whole[name]), (step, name)


@pytest.mark.parametrize("path", ["torch.optim.SGD", FREE])
def test_each_group_keeps_its_rate_and_words_do_not_decay(
    path: str, small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    chosen = optimizer(path, weight_decay=0.3)
    rates = {"text_encoder_lr": 2e-4, "token_lr": 3e-4, "new_tokens": ["<s>"]}
    module, data = module_and_data(small_sd, photos, chosen, train_text_encoder=True, **rates)
    run = trainer(tmp_path, 1, enable_checkpointing=False)
    run.fit(module, data)
    groups = run.optimizers[0].param_groups
    assert [group["initial_lr"] for group in groups] == [1e-3, 2e-4, 3e-4]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.3, 0.0]
    assert groups[2]["params"] == list(module.backbone.token_rows)


def test_a_decay_of_zero_in_the_usual_adamw_is_not_the_chosen_optimizer_s(small_sd: Path) -> None:
    module = DreamBooth(str(small_sd), adam=AdamSettings(weight_decay=0), new_tokens=["<s>"])
    usual = module._new_optimizer(fused=False)
    assert [group["weight_decay"] for group in usual.param_groups] == [0.0, 0.0]
    module.choose(Named(torch.optim.SGD, {"weight_decay": 0.1}))
    chosen = module._new_optimizer(fused=False)
    assert [group["weight_decay"] for group in chosen.param_groups] == [0.1, 0.0]
    assert set(chosen.param_groups[1]) == set(torch.optim.SGD(module.parameters()).param_groups[0])


def test_a_warm_up_that_would_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="set it to 'constant_with_warmup', or the steps to 0"):
        DreamBooth(lr_warmup_steps=500)


def test_a_schedule_by_class_steps_with_the_optimizer(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    module, data = parts(small_sd, photos)
    module.choose(schedule=Named(torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.5}))
    run = trainer(tmp_path, 3, enable_checkpointing=False)
    run.fit(module, data)
    assert type(run.optimizers[0]) is torch.optim.AdamW
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 / 8)


class Seen(pl.Callback):
    """The weights that pictures and validation are made with, after each step."""

    def __init__(self) -> None:
        self.at: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        with pl_module.looked_at():
            self.at.append(learned(pl_module))

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.at.append(learned(pl_module))


def test_schedule_free_is_looked_at_by_its_average_and_not_disturbed(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    """The average is that of the library alone; checkpoints hold it; looking changes no bit."""
    chosen = optimizer(FREE)
    module, data = module_and_data(small_sd, photos, chosen)
    alone = trainer(tmp_path, 6, enable_checkpointing=False, limit_val_batches=0)
    alone.fit(module, data)
    whole = learned(module)
    assert not alone.optimizers[0].param_groups[0]["train_mode"]

    module, data = module_and_data(small_sd, photos, chosen)
    seen = Seen()
    grid = SampleGrid(every_n_steps=2, prompts=["a photo"], seeds=[0], num_inference_steps=1)
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    trainer(tmp_path, 6, seen, grid, saver, val_check_interval=3, num_sanity_val_steps=1).fit(
        module, data
    )
    assert all(torch.equal(value, whole[name]) for name, value in learned(module).items())
    last = torch.load(tmp_path / "step=6.ckpt", weights_only=True)
    first = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    name = next(iter(whole))
    assert torch.equal(last["state_dict"][name], whole[name])
    averages = [each[name] for each in seen.at]
    assert any(torch.equal(first["state_dict"][name], each) for each in averages)
    point = first["weights_in_training"][name]
    assert not torch.equal(point, first["state_dict"][name])
    assert not any(torch.equal(point, each) for each in averages)


def test_a_checkpoint_tests_the_average(small_sd: Path, photos: Path, tmp_path: Path) -> None:
    chosen = optimizer(FREE)
    module, data = module_and_data(small_sd, photos, chosen)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=0, save_last=True)
    trainer(tmp_path, 4, saver).fit(module, data)
    ended = learned(module)
    module, data = parts(small_sd, photos)  # whatever optimiser it would train with
    tester = trainer(tmp_path, 4)
    tester.test(module, datamodule=data, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert all(torch.equal(value, ended[name]) for name, value in learned(module).items())


def test_two_averages_are_refused(small_sd: Path, photos: Path, tmp_path: Path) -> None:
    module, data = module_and_data(small_sd, photos, optimizer(FREE))
    with pytest.raises(ValueError, match="averages the weights itself; leave EMA out"):
        trainer(tmp_path, 1, EMA()).fit(module, data)


@pytest.mark.parametrize(
    ("path", "arguments", "options", "message"),
    [
        ("torch.optim.SGD", {"momentum": -1.0}, {}, "optimizer: SGD refuses its .* momentum"),
        ("transformers.Adafactor", {"relative_step": True}, {}, "--optimizer.relative_step false"),
        ("torch.optim.Muon", {}, {}, "optimizer: Muon refuses .* 2D parameters"),
        ("torch.optim.SGD", {"momentum": float("nan")}, {}, "optimizer.momentum is nan; it must"),
        ("torch.optim.Adam", {"betas": [0.9, float("nan")]}, {}, "betas is .*; it must be a num"),
        (
            "torch.optim.SGD",
            {},
            {"adam": AdamSettings(eight_bit=True)},
            "model.adam.eight_bit is true and optimizer is",
        ),
        (
            "prodigyopt.Prodigy",
            {},
            {"train_text_encoder": True, "text_encoder_lr": 0.5},
            "one rate for all that learns",
        ),
    ],
)
def test_mistakes_are_named(
    path: str, arguments: dict[str, Any], options: dict[str, Any], message: str, small_sd: Path
) -> None:
    module = DreamBooth(str(small_sd), **options)
    with pytest.raises(ValueError, match=message):
        module.choose(optimizer(path, **arguments))


def test_an_optimizer_that_only_refuses_at_its_first_step(
    small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    module, data = module_and_data(small_sd, photos, optimizer("torch.optim.SparseAdam"))
    with pytest.raises(ValueError, match=r"optimizer: SparseAdam does not take these: .* dense"):
        trainer(tmp_path, 1, enable_checkpointing=False).fit(module, data)


def test_a_schedule_that_would_train_upwards(small_sd: Path, photos: Path, tmp_path: Path) -> None:
    module, data = parts(small_sd, photos)
    said = r"lr_scheduler: {} sets the rate to -.*; it must be at least 0"
    for name, settings in (
        ("ExponentialLR", {"gamma": -1.0}),
        ("OneCycleLR", {"max_lr": -1.0, "total_steps": 9}),
    ):
        schedule = optimizer(f"torch.optim.lr_scheduler.{name}", **settings)
        with pytest.raises(ValueError, match=said.format(name)):
            module.choose(schedule=schedule)
    later = optimizer("torch.optim.lr_scheduler.StepLR", step_size=2, gamma=-0.5)
    module.choose(schedule=later)
    with pytest.raises(ValueError, match=said.format("StepLR")):
        trainer(tmp_path, 3, enable_checkpointing=False).fit(module, data)


def test_a_rate_that_multiplies_another_is_named(
    small_sd: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DreamBooth(str(small_sd)).choose(optimizer("prodigyopt.Prodigy"))
    assert "multiplies the rate that it finds itself" in caplog.text
