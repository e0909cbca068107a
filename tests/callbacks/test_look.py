"""Looks while it trains, the best kept, an end asked for: python -m pytest tests/callbacks"""

import csv
import logging
import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from shortcut_lightning.callbacks.ema import EMA
from shortcut_lightning.callbacks.evaluation import EvaluationCallback
from shortcut_lightning.callbacks.look import Look
from shortcut_lightning.cli import main
from shortcut_lightning.cli.keep_last import KeepLast
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.settings import Sampled
from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import Sampling

VALUES = {2: 0.1, 4: 0.5, 6: 0.4, 8: 0.3, 10: 0.9}


class Scripted(EvaluationCallback):
    """A metric that goes up and down by the step, as it is told."""

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.trainer = trainer

    def measure(self, samples: Any, datamodule: Any) -> dict[str, Estimate]:
        value = VALUES.get(self.trainer.global_step, 0.0)
        return {"score": Estimate(value, value, value, len(samples))}


class Watched(Scripted):
    """Also remembers the weights that are sampled and measured, none where dropout is at work."""

    def __init__(self) -> None:
        self.sampled: dict[int, Any] = {}
        self.measured: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        sample = pl_module.sample

        def watched(batch: Any) -> torch.Tensor:
            self.sampled[trainer.global_step] = self._seen()
            return sample(batch)

        pl_module.sample = watched

    def measure(self, samples: Any, datamodule: Any) -> dict[str, Estimate]:
        self.measured[self.trainer.global_step] = self._seen()
        return super().measure(samples, datamodule)

    def _seen(self) -> dict[str, torch.Tensor]:
        module = self.trainer.lightning_module
        named = {} if any(m.training for m in module.modules()) else module.named_parameters()
        return {name: p.detach().clone() for name, p in dict(named).items() if p.requires_grad}


class Ask(pl.Callback):
    """Somebody outside, at a step."""

    def __init__(self, step: int, what: str) -> None:
        self.step, self.what = step, what

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step != self.step:
            return
        if self.what == "signal":
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            Path(trainer.log_dir or "", self.what).touch()


@pytest.fixture
def run(small_sd: Path, tmp_path: Path) -> Any:
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "0.png")

    def fit(
        *callbacks: pl.Callback, steps: int = 10, log_every_n_steps: int = 1
    ) -> tuple[DreamBooth, pl.Trainer, Path]:
        pl.seed_everything(3, verbose=False)
        module = DreamBooth(
            str(small_sd),
            method="lora",
            rank=2,
            sampling=Sampling(num_inference_steps=1),
            learning_rate=1e-2,
        )
        data = PersonalizationDataModule(
            str(photos),
            "a photo of sks dog",
            train_batch_size=1,
            evaluation=Sampled(["{instance}", "{instance} on the beach"], 3, 4, base=False),
        )
        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu", logger=CSVLogger(tmp_path),
            log_every_n_steps=log_every_n_steps, limit_val_batches=0,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[*callbacks, KeepLast()],
        )  # fmt: skip
        trainer.fit(module, data)
        return module, trainer, Path(trainer.log_dir or "")

    return fit


def weights(module: DreamBooth) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters() if p.requires_grad]


def test_looks_are_written_and_change_nothing(run: Any) -> None:
    module, _, folder = run(Look(every_n_steps=4, columns=2, measure=True), Scripted())
    assert sorted(each.name for each in (folder / "looks").iterdir()) == [
        "000004.png",
        "000008.png",
    ]
    assert "look/score" in (folder / "metrics.csv").read_text().splitlines()[0]
    with Image.open(folder / "looks" / "000004.png") as picture:
        assert picture.height > picture.width * 0.9  # two prompts, two columns
    alone, *_ = run()
    assert all(torch.equal(a, b) for a, b in zip(weights(module), weights(alone), strict=True))


class Monitors(pl.Callback):
    """Another callback, which reads what is logged, as ModelCheckpoint does."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if "look/score" in trainer.callback_metrics:
            self.seen.append(round(float(trainer.callback_metrics["look/score"]), 3))


def test_numbers_have_a_row_each_at_their_own_step(run: Any) -> None:
    """However seldom losses are logged, and though an epoch of one picture ends with each step."""
    monitors = Monitors()
    look = Look(every_n_steps=4, measure=True)
    *_, folder = run(look, Scripted(), monitors, steps=12, log_every_n_steps=10)
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["look/score"]]
    assert [(row["step"], row["look/score"]) for row in rows] == [
        ("4", "0.5"), ("8", "0.3"), ("12", "0.0"),
    ]  # fmt: skip
    assert {0.5, 0.3} <= set(monitors.seen)


def test_the_best_is_kept_and_training_ends_without_better(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    look = Look(every_n_steps=2, best="score", patience=2)
    _, trainer, folder = run(look, Scripted())
    assert trainer.global_step == 8
    assert torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["global_step"] == 4
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8
    assert "score has not been better than 0.5 for 2 looks" in caplog.text
    assert look.state_dict() == {"record": 0.5, "since": 2}
    lower = Look(every_n_steps=2, best="score", higher=False)
    *_, folder = run(lower, Scripted(), steps=6)
    assert torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["global_step"] == 2


def test_an_average_is_looked_at_and_is_what_is_kept(run: Any) -> None:
    watched = Watched()
    module, _, folder = run(EMA(0.9), Look(every_n_steps=2, best="score"), watched, steps=6)
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] == 4
    for seen in (watched.sampled[4], watched.measured[4]):
        assert seen
        assert all(torch.equal(best["state_dict"][name], value) for name, value in seen.items())
    name = next(iter(watched.measured[4]))
    assert not torch.equal(best["weights_in_training"][name], watched.measured[4][name])
    alone, *_ = run(EMA(0.9), steps=6)
    assert all(torch.equal(a, b) for a, b in zip(weights(module), weights(alone), strict=True))


@pytest.mark.parametrize("what", ["look", "signal"])
def test_a_look_is_asked_for_from_outside(
    what: str, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    _, trainer, folder = run(Ask(2, what), Look(), steps=5)
    assert [each.name for each in (folder / "looks").iterdir()] == ["000003.png"]
    assert "A look was asked for; step 3 is looked at." in caplog.text
    assert trainer.global_step == 5
    assert not (folder / "look").exists()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_an_end_is_asked_for_from_outside(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, trainer, folder = run(Ask(2, "stop"), Look())
    assert trainer.global_step == 3
    assert "An end was asked for; training ends with step 3." in caplog.text
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    assert not (folder / "stop").exists()


def test_mistakes_are_named(run: Any) -> None:
    for options, message in (
        ({"every_n_steps": 2, "patience": 2}, "Look.best names no metric"),
        ({"best": "score"}, "set Look.every_n_steps"),
        ({"columns": 0}, "Look.columns is 0; it must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Look(**options)
    with pytest.raises(ValueError, match="'scroe', which no callback measures; there are: score"):
        run(Look(every_n_steps=2, best="scroe"), Scripted())


def test_one_line_switches_it_on(
    small_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main([
        "fit", "--model", "DreamBooth", "--model.pretrained_model_name_or_path", str(small_sd),
        "--data", "PersonalizationDataModule", "--data.instance_data_dir", "pocket:0",
        "--data.instance_prompt", "a photo of sks person", "--trainer.max_steps", "2",
        "--trainer.accelerator", "cpu", "--model.sampling.num_inference_steps", "1",
        "--name", "small",
        "--evaluate_after_fit", "false", "--trainer.limit_val_batches", "0",
        "--trainer.callbacks+=Look", "--trainer.callbacks.every_n_steps=1",
    ])  # fmt: skip
    looks = Path("runs/small/version_0/looks")
    assert sorted(each.name for each in looks.iterdir()) == ["000001.png", "000002.png"]
