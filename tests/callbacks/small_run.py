"""A run in miniature: a module that paints instead of sampling, photographs of one colour."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from shortcut_lightning.batch import Example, PromptBatch, TrainBatch
from shortcut_lightning.metrics import ImageTextEncoder

SUBJECT = torch.tensor([0.8, 0.3, 0.1])  # the colour that makes it this subject
PROMPTS = ["a photo of sks thing", "sks thing at night", "a <b>bold</b> thing"]


def paint(colour: Tensor, seed: int) -> Tensor:
    """(3, 8, 8) in [0, 1]: the colour with grain."""
    grain = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (colour[:, None, None] + 0.05 * grain).clamp(0, 1)


class Painter(nn.Module):
    """Stands for a backbone: `sample` paints an image per seed and remembers mode and prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.was_training: list[bool] = []
        self.asked: list[str] = []

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        negative_prompts: str,
        num_inference_steps: int,
        guidance_scale: float,
    ) -> Tensor:
        self.was_training.append(self.dropout.training)
        self.asked += prompts
        return torch.stack([paint(SUBJECT, seed) for seed in seeds])


class Batches:
    """Ready-made batches as a loader; Lightning would split a DataLoader over the ranks itself."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class SmallModule(LightningModule):
    """The tuned arm paints the subject's colour, the base arm any colour."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Painter()
        self.weight = nn.Parameter(torch.ones(1))

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        loss = (self.weight**2).sum()
        self.log_dict({"train/loss": loss, "train/loss_prior": loss / 2})
        return loss

    def test_step(self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self.predict_step(batch, batch_idx)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        def colour(seed: int) -> Tensor:
            own = torch.rand(3, generator=torch.Generator().manual_seed(seed))
            return SUBJECT if batch.arm == "tuned" else own

        return torch.stack([paint(colour(seed), seed) for seed in batch.seeds.tolist()])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SmallData(LightningDataModule):
    """Six photographs, five references, prompts in two loaders, with the attributes of ours."""

    def __init__(self, per_prompt: int = 4, references: int = 5, steps: int = 6) -> None:
        super().__init__()
        self.per_prompt = per_prompt
        self.steps = steps
        self.given = [Example(paint(SUBJECT, i), PROMPTS[0], f"{i}.jpg") for i in range(6)]
        self.trained_on = [e._replace(image=(e.image + 8 / 255).clamp(0, 1)) for e in self.given]
        self.references = [
            Example(paint(SUBJECT, 100 + i), PROMPTS[0], f"{i}.jpg") for i in range(references)
        ]
        self.held_out = True
        self.class_images: list[Example] = []
        self.seconds = {"perturb": 1.5}

    def train_dataloader(self) -> Batches:
        empty, no_prior = torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.bool)
        return Batches(
            [
                TrainBatch(empty, ["a", "b"], no_prior, torch.tensor([i, i + 1]))
                for i in range(self.steps)
            ]
        )

    def test_dataloader(self) -> list[Batches]:
        return [self.batches("tuned"), self.batches("base")]

    def predict_dataloader(self) -> Batches:
        return self.batches("tuned")

    def batches(self, arm: str) -> Batches:
        """Batches of four; with two processes every second one is this rank's, and the last image
        is made by both."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        wanted = [prompt for prompt in PROMPTS for _ in range(self.per_prompt)]
        own = [i for i in range(len(wanted)) if i % world == rank or i == len(wanted) - 1]
        chunks = [own[i : i + 4] for i in range(0, len(own), 4)]
        return Batches(
            [
                PromptBatch(
                    prompts=[wanted[i] for i in ids],
                    negative_prompts=["blurry"] * len(ids),
                    seeds=torch.tensor([7 + i for i in ids]),
                    ids=torch.tensor(ids),
                    arm=arm,
                )
                for ids in chunks
            ]
        )


class Colours(ImageTextEncoder):
    """Mean colours; every prompt means the subject's colour. Its network has weights."""

    name = "colours"

    def __init__(self) -> None:
        self.network = nn.Linear(1000, 1000)
        self.calls = 0

    def images(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.mean(dim=(2, 3)) - 0.5

    def texts(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        return (SUBJECT - 0.5).expand(len(prompts), 3).to(device)


def small_trainer(folder: Path, callbacks: Sequence[Any], **options: Any) -> Trainer:
    """A Trainer whose run folder is `folder`/run/v."""
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
        "logger": CSVLogger(str(folder), name="run", version="v"),
    }
    return Trainer(**{**settings, **options}, callbacks=list(callbacks))


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
