"""The curve during training, and the ladder: pytest tests/audit/test_callback.py"""

import csv
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from shortcut_lightning import draws
from shortcut_lightning.audit.ladder import climb
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks.membership import Membership
from shortcut_lightning.data.buckets import buckets
from shortcut_lightning.data.loading import load_subject
from shortcut_lightning.files.cache import Cache
from shortcut_lightning.membership import CLiDThreshold, Engine, MonteCarlo, NullOnly, picture
from shortcut_lightning.membership.pictures import content_key
from shortcut_lightning.prompts import Prompts


class Album(LightningDataModule):
    """Eight images, half of them trained on; `leaky` has no others, and an attack in between."""

    def __init__(self, leaky: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        images = (torch.rand(8, 3, 32, 32, generator=generator) * 255).round() / 255
        examples = [Example(x, f"a photo of dog {i}", f"{i}.png") for i, x in enumerate(images)]
        self.trained_on = examples[:4]
        self.references = examples[4:]
        self.held_out = not leaky
        if leaky:
            self.references = [e._replace(image=1 - e.image) for e in self.trained_on]

    def train_dataloader(self) -> DataLoader:
        return DataLoader([0] * 100, batch_size=1)


class Memoriser(LightningModule):
    """Learns the members by heart, with the very noise they will be asked about."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        examples = self.trainer.datamodule.trained_on  # type: ignore[attr-defined]
        with torch.no_grad():
            latents = self.backbone.encode(torch.stack([e.image for e in examples])).mean
            text = self.backbone.embed([e.prompt for e in examples])
        keys = torch.tensor([content_key(e.image) for e in examples])
        noise = draws.normal(latents.shape[1:], 0, "membership noise t450 #0", keys)
        steps = torch.full((4,), 450)
        noisy = self.backbone.add_noise(latents, noise, steps)
        return functional.mse_loss(self.backbone.predict(noisy, steps, text), noise)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.backbone.denoiser.parameters(), lr=3e-3)


def trainer(folder: Path, callback: Membership, steps: int, **changes: object) -> Trainer:
    settings: dict[str, object] = {"max_steps": steps, "log_every_n_steps": 2, **changes}
    return Trainer(
        logger=CSVLogger(folder, name="", version="run"),
        callbacks=[callback],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **settings,  # type: ignore[arg-type]
    )


def test_the_curve_is_logged_and_shown(epsilon_model: Backbone, tmp_path: Path) -> None:
    callback = Membership(every_n_steps=8, score=CLiDThreshold(NullOnly(), n_t=1))
    module = Memoriser(deepcopy(epsilon_model))
    trainer(tmp_path, callback, 16, log_every_n_steps=10).fit(module, datamodule=Album())
    with (tmp_path / "run" / "membership.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["8", "16"]
    for row in rows:
        assert all(0 <= float(row[name]) <= 1 for name in row if name != "step")
    assert float(rows[-1]["auc_loss"]) > 0.9  # members' loss fell more than that of the others
    assert float(rows[-1]["auc_log_ratio"]) > 0.5
    assert rows[0]["auc_before"] == rows[1]["auc_before"]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["audit/auc"]]
    assert [(row["step"], row["audit/auc"]) for row in logged] == [
        (row["step"], row["auc"]) for row in rows
    ]
    (section,) = callback.show({}, SimpleNamespace(), tmp_path)  # type: ignore[arg-type]
    assert "4 members against 4 hold-outs" in section.lead
    assert "polyline" in section.html
    # A resumed run knows the model before the first step from its checkpoint.
    state = callback.state_dict()
    resumed = Membership(every_n_steps=4)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state


def test_a_resumed_run_has_no_model_before_its_first_step(
    epsilon_model: Backbone, tmp_path: Path
) -> None:
    """Unless the checkpoint holds its features: the weights are half-trained by then."""
    first = Membership(every_n_steps=2, score=CLiDThreshold(NullOnly(), n_t=1))
    module = Memoriser(deepcopy(epsilon_model))
    run = trainer(tmp_path, first, 2)
    run.fit(module, datamodule=Album())
    run.save_checkpoint(tmp_path / "half.ckpt")
    state = torch.load(tmp_path / "half.ckpt", weights_only=False)
    for resumed in (first, Membership(every_n_steps=2, score=first.score)):
        before = first.state_dict()["before"] if resumed is first else None
        assert resumed is not first or before is not None
        if resumed is not first:  # as if the callback had been added only now
            state["callbacks"] = {}
            torch.save(state, tmp_path / "half.ckpt")
        module = Memoriser(deepcopy(epsilon_model))
        run = trainer(tmp_path, resumed, 4)
        run.fit(module, datamodule=Album(), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
        assert resumed.state_dict()["before"] == before
        (section,) = resumed.show({}, SimpleNamespace(), tmp_path)  # type: ignore[arg-type]
        assert ("against the model before training" in section.lead) == (resumed is first)
    assert "auc_before" not in resumed.state_dict()["rows"][-1]


def test_training_is_as_without_the_callback(epsilon_model: Backbone, tmp_path: Path) -> None:
    weights = []
    for number, every in enumerate((2, 100)):
        module = Memoriser(deepcopy(epsilon_model))
        callback = Membership(every_n_steps=every, score=CLiDThreshold(NullOnly(), n_t=1))
        trainer(tmp_path / str(number), callback, 4).fit(module, datamodule=Album())
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(*weights)


def test_without_hold_outs_it_says_what_to_give(epsilon_model: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"4 members and 0 hold-outs.*reference_data_dir"):
        trainer(tmp_path, Membership(), 1).fit(
            Memoriser(deepcopy(epsilon_model)), datamodule=Album(leaky=True)
        )
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        Membership(every_n_steps=0)


def test_hold_outs_are_prepared_as_the_members_are(tmp_path: Path) -> None:
    """In buckets a photograph is first shrunk to its bucket, then enlarged for the model."""
    for name in ("mine", "others"):
        (tmp_path / name).mkdir()
        for number in range(2):
            image = Image.effect_noise((256, 128), 40 + 10 * number).convert("RGB")
            image.save(tmp_path / name / f"{number}.png")
    folders, cache = (str(tmp_path / "mine"), str(tmp_path / "others")), Cache(tmp_path / "cache")
    said = {"captions": False, "side": 64, "crop": True, "recursive": False}
    found = load_subject(*folders, Prompts("a dog"), cache, sizes=buckets(64, 8, 2.0), **said)
    data = SimpleNamespace(
        trained_on=found.given, references=found.references, validated=found.validated
    )
    sets = Membership()._read(SimpleNamespace(datamodule=data), 64)  # type: ignore[arg-type]
    assert [[each.source.shape[1:] for each in some] for some in sets] == [[(48, 80)] * 2] * 2


def test_a_rehearsal_asks_nothing(epsilon_model: Backbone, tmp_path: Path) -> None:
    callback = Membership(every_n_steps=1)
    trainer(tmp_path, callback, -1, fast_dev_run=True).fit(
        Memoriser(deepcopy(epsilon_model)), datamodule=Album()
    )
    assert callback.state_dict() == {"before": None, "rows": []}


def test_the_ladder_spends_queries_on_undecided_images_only(
    epsilon_model: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a first rung that knows the clear cases, only the others reach the second."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, 3, 32, 32, generator=generator)
    pictures = [picture(str(i), "a photo", x, 32) for i, x in enumerate(images)]
    target, inside, outside = pictures[:20], pictures[20:40], pictures[40:]
    rng = np.random.default_rng(0)
    truth = {p.row: i < 10 for i, p in enumerate(target)} | {p.row: True for p in inside}
    hint = {p.row: rng.normal(2.0 if truth.get(p.row) else 0.0, 1) for p in pictures}
    asked: dict[str, list[str]] = {"cheap": [], "dear": []}

    class Told(MonteCarlo):
        """A score that is told: a hint on the first rung, the truth on the second."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def measure(self, probe):  # type: ignore[no-untyped-def]
            rows = [p.row for p in probe.chunk.pictures]
            asked[self.name] += rows
            values = [hint[r] if self.name == "cheap" else float(truth.get(r, False)) for r in rows]
            return torch.tensor(values)[:, None]

    engine = Engine({"target": epsilon_model, "shadow": epsilon_model}, progress=False)
    rungs = [Told("cheap"), Told("dear")]
    decided = climb(engine, target, inside, outside, rungs=rungs, error=0.1)
    assert [each.picture.name for each in decided] == [p.name for p in target]
    undecided = [each for each in decided if each.rung == 1]
    assert 0 < len(undecided) < 20
    assert all(each.member == truth[each.picture.row] for each in undecided)
    assert {each.queries for each in undecided} == {6}
    assert {each.queries for each in decided if each.rung == 0} == {3}
    right = [each.member == truth[each.picture.row] for each in decided if each.rung == 0]
    assert np.mean(right) > 0.8
    assert len(set(asked["dear"]) & {p.row for p in target}) == len(undecided)
    with pytest.raises(ValueError, match=r"error is 0\.6"):
        climb(engine, target, inside, outside, error=0.6)


def test_the_bound_that_was_crossed_decides(epsilon_model: Backbone) -> None:
    """Also where tau, here 14.5, is above both bounds, here 1.5 and 6."""
    inside = [1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 20.0, 20.0, 20.0, 20.0]
    outside = [float(value) for value in range(10)]
    asked = [8.0, 15.0, 1.0, 4.0]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 3, 32, 32, generator=generator)
    pictures = [picture(str(i), "a photo", x, 32) for i, x in enumerate(images)]
    told = {p.row: v for p, v in zip(pictures, asked + inside + outside, strict=True)}

    class Told(MonteCarlo):
        def measure(self, probe):  # type: ignore[no-untyped-def]
            return torch.tensor([[told[p.row]] for p in probe.chunk.pictures])

    engine = Engine({"target": epsilon_model, "shadow": epsilon_model}, progress=False)
    sets = pictures[4:14], pictures[14:]
    decided = climb(engine, pictures[:4], *sets, rungs=[Told(), Told()], error=0.3)
    assert [each.member for each in decided] == [True, True, False, False]
    assert [each.rung for each in decided] == [0, 0, 0, 1]
