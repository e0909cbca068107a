"""A tiny module, datamodule and stage for tests of the command line alone."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader


class Stage(ABC):
    """Base of the stages, as attacks and purifiers have one."""

    @abstractmethod
    def run(self) -> None: ...


class Blur(Stage):
    def __init__(self, radius: float = 1.0, passes: int = 2) -> None:
        if radius < 0:
            raise ValueError(f"data.stage.radius: {radius} is negative; give pixels")
        self.radius, self.passes = radius, passes

    def run(self) -> None: ...


class Crop(Stage):
    def __init__(self, radius: float = 1.0, side: int = 8) -> None:
        self.radius, self.side = radius, side

    def run(self) -> None: ...


class Stamp(Stage):
    def __init__(self, motif: str) -> None:
        self.motif = motif

    def run(self) -> None: ...


@dataclass
class Pen:
    """Settings without a class of their own to choose, as decoupling has them."""

    width: int = 1
    colour: str = "black"


class Line(LightningModule):
    """Fits a line; logs what it was given."""

    seen: dict[str, object]

    def __init__(self, learning_rate: float = 1e-3, rank: int = 4, warmup: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate, self.rank, self.warmup = learning_rate, rank, warmup
        self.layer = torch.nn.Linear(2, 1)

    def _loss(self, batch: Tensor, name: str) -> Tensor:
        loss: Tensor = self.layer(batch).square().mean()
        self.log(name, loss)
        return loss

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return self._loss(batch, "train/loss")

    def validation_step(self, batch: Tensor, index: int) -> None:
        self._loss(batch, "val/loss")

    def test_step(self, batch: Tensor, index: int) -> None:
        self._loss(batch, "eval/loss")

    def predict_step(self, batch: Tensor, index: int) -> Tensor:
        return self.layer(batch)

    def configure_optimizers(self) -> object:
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate)
        if not self.warmup:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 / (s + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_end(self) -> None:
        groups = self.trainer.optimizers[0].param_groups
        Line.seen = {"lr": groups[0]["lr"], "weight": self.layer.weight.detach().clone()}


class Points(LightningDataModule):
    """Random points; `trouble` names what goes wrong in `setup`."""

    def __init__(
        self,
        instance_data_dir: str = "",
        prompt: str = "a photo",
        side: int = 8,
        stage: Stage = Blur(),  # noqa: B008
        stages: Sequence[Stage] = (),
        pen: Pen = Pen(),  # noqa: B008
        prompts: Sequence[str] = (),
        trouble: str = "",
    ) -> None:
        super().__init__()
        self.instance_data_dir, self.trouble = instance_data_dir, trouble
        self.prompt, self.side, self.prompts = prompt, side, list(prompts)
        self.stage, self.stages, self.pen = stage, stages, pen

    def setup(self, stage: str) -> None:
        match self.trouble:
            case "folder":
                os.listdir(self.instance_data_dir)
            case "value":
                raise ValueError("data.prompt: '' is empty; write what the photographs show")
            case "hub":
                raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.")
            case "bug":
                int("not a number")
            case "index":
                _ = torch.zeros(2)[5]

    def train_dataloader(self) -> DataLoader:
        points = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
        return DataLoader(list(points), batch_size=2)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def config_text(**trainer: object) -> str:
    """A config file that runs in a second."""
    settings = {
        "max_steps": 4,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **trainer,
    }
    lines = "".join(f"  {key}: {value}\n" for key, value in settings.items())
    return (
        f"model: {{class_path: cli_fakes.Line}}\ndata: {{class_path: cli_fakes.Points}}\n"
        f"trainer:\n{lines}"
    )


def write_config(folder: Path, name: str = "small.yaml", extra: str = "", **trainer: object) -> str:
    """Writes such a file and returns its path."""
    path = folder / name
    path.write_text(config_text(**trainer) + extra)
    return str(path)
