"""The stream under Lightning: interrupted anywhere, or on two processes, it is the same stream.

python -m pytest tests/data
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fake_model import FakeModule
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from PIL import Image

from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.captions import Captions
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.settings import Passes, Sampled

STEPS = 11


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        pixels = torch.randint(256, (20, 24, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{number}.png")
    return folder


def run(photos: Path, folder: Path, ckpt_path: Path | None = None, **options: Any) -> FakeModule:
    pl.seed_everything(1, verbose=False)
    torch.manual_seed(0)
    data = PersonalizationDataModule(
        str(photos),
        "a photo of sks dog",
        class_prompt="a photo of dog",
        with_prior_preservation=True,
        num_class_images=4,
        class_data_dir=str(folder.parent / "class"),
        captions=Captions(template="{caption}, a, b, c", shuffle=True, dropout=0.3),
        training=Passes(
            picture_repeats={"1.png": 2},
            random_flip=True,
            center_crop=False,
            repeats=options.pop("repeats", 2),
            num_workers=options.pop("workers", 0),
        ),
        train_batch_size=options.pop("train_batch_size", 2),
        evaluation=Sampled(images_per_prompt=5, batch_size=2),
    )
    module = FakeModule()
    evaluate = options.pop("evaluate", False)
    module.fail_at = options.pop("fail_at", -1)
    settings: dict[str, Any] = {"max_steps": STEPS, "accelerator": "cpu", "logger": False}
    trainer = pl.Trainer(
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            ModelCheckpoint(
                folder,
                filename="{step}",
                save_top_k=-1,
                **options.pop("when", {"every_n_train_steps": 1}),
            ),
            *options.pop("callbacks", []),
        ],
        **settings | options,
    )
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=False)
    if evaluate:
        trainer.test(module, data, verbose=False)
    return module


def shown(module: FakeModule) -> list[list[int]]:
    return [batch.draws.tolist() for batch in module.seen]


def trained(checkpoint: Path) -> int:
    loops = torch.load(checkpoint, weights_only=False)["loops"]
    return loops["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]


def same_weights(one: FakeModule, other: FakeModule) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"repeats": 3}, id="epoch-is-no-whole-pass"),
        pytest.param({"accumulate_grad_batches": 2, "repeats": 3}, id="accumulation"),
        pytest.param({"limit_train_batches": 2, "repeats": 3}, id="limited-epoch"),
        pytest.param({"limit_val_batches": 0}, id="no-validation"),
        pytest.param(
            {"val_check_interval": 2, "check_val_every_n_epoch": None}, id="validation-by-steps"
        ),
        pytest.param({"max_steps": -1, "max_epochs": 4}, id="epochs"),
        pytest.param({"workers": 1, "max_steps": 5}, id="workers"),
        pytest.param({"when": {"every_n_epochs": 1}}, id="checkpoint-after-validation"),
        pytest.param(
            {"when": {"every_n_epochs": 1, "save_on_train_epoch_end": True}},
            id="checkpoint-after-epoch",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_resuming_at_any_step_is_no_interruption(
    photos: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = run(photos, tmp_path / "whole", **options)
    batches = shown(whole)
    instances = [row for batch in batches for row in batch[:2]]
    assert instances == list(range(0, 4 * len(batches), 2))
    checkpoints = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(checkpoints) >= 3
    for checkpoint in checkpoints:
        resumed = run(photos, tmp_path / "again", checkpoint, **options)
        assert shown(resumed) == batches[trained(checkpoint) :], checkpoint.name
        assert same_weights(resumed, whole), checkpoint.name


@pytest.mark.filterwarnings("ignore")
def test_another_batch_size_on_resume_is_named(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(photos, tmp_path / "first", max_steps=2)
    checkpoint = next((tmp_path / "first").glob("step=2.ckpt"))
    run(photos, tmp_path / "same", checkpoint, max_steps=3)
    assert "examples a step" not in caplog.text
    run(photos, tmp_path / "other", checkpoint, max_steps=3, train_batch_size=3)
    assert "trained on 2 examples a step, this run on 3" in caplog.text


def test_a_batch_that_failed_is_trained_on_again(photos: Path, tmp_path: Path) -> None:
    whole = run(photos, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        run(photos, tmp_path / "cut", fail_at=5, callbacks=[OnExceptionCheckpoint(tmp_path)])
    resumed = run(photos, tmp_path / "again", tmp_path / "on_exception.ckpt")
    assert shown(resumed) == shown(whole)[5:]
    assert same_weights(resumed, whole)


def _two_ranks(photos: Path, folder: Path) -> None:
    module = run(photos, folder, devices=2, strategy="ddp", train_batch_size=1, evaluate=True)
    rank = os.environ.get("LOCAL_RANK", "0")
    state = {
        "seen": [tuple(batch) for batch in module.seen],
        "asked": [(batch.arm, batch.ids.tolist()) for batch in module.asked],
        "weights": module.state_dict(),
    }
    torch.save(state, folder / f"rank{rank}.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_see_what_one_sees(photos: Path, tmp_path: Path) -> None:
    alone = run(photos, tmp_path / "alone")
    folder = tmp_path / "pair"
    folder.mkdir()
    script = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import test_stream_in_lightning
test_stream_in_lightning._two_ranks(Path({str(photos)!r}), Path({str(folder)!r}))
"""
    file = tmp_path / "two_ranks.py"
    file.write_text(script)
    subprocess.run([sys.executable, file], check=True, timeout=300)
    first, second = (torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1))
    assert len(first["seen"]) == len(second["seen"]) == len(alone.seen)
    for mine, theirs, batch in zip(first["seen"], second["seen"], alone.seen, strict=True):
        mine, theirs = TrainBatch(*mine), TrainBatch(*theirs)
        rows = [0, 2, 1, 3]  # each rank has an instance and a class row
        assert torch.equal(torch.cat([mine.draws, theirs.draws])[rows], batch.draws)
        assert torch.equal(torch.cat([mine.images, theirs.images])[rows], batch.images)
        assert [(mine.prompts + theirs.prompts)[row] for row in rows] == batch.prompts
    for name, weight in alone.state_dict().items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], weight)
    for arm in ("tuned", "base"):
        shares = [[ids for a, ids in rank["asked"] if a == arm] for rank in (first, second)]
        assert shares == [[[0], [1]], [[2], [3, 4]]]
