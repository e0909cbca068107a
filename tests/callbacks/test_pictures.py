"""Grids, predicted images and their loggers. Run: pytest tests/callbacks/test_pictures.py"""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_run import PROMPTS, Colours, SmallData, SmallModule, rows, small_trainer

from shortcut_lightning.callbacks import ClipAlignment, Evaluation, SampleGrid, SaveImages
from shortcut_lightning.prompts import Prompts


def predict(folder: Path, callback: SaveImages) -> None:
    trainer = small_trainer(folder, [callback])
    trainer.predict(SmallModule(), datamodule=SmallData(), return_predictions=False)


def test_grid_of_an_evaluation_has_a_row_per_prompt_and_a_block_per_arm(tmp_path) -> None:
    trainer = small_trainer(tmp_path, [Evaluation(), SampleGrid(columns=3, side=32)])
    trainer.test(SmallModule(), datamodule=SmallData(), verbose=False)
    with Image.open(tmp_path / "run" / "v" / "grid.png") as grid:
        assert grid.width >= 2 * 3 * 32
        assert 3 * 32 <= grid.height < 7 * 32


def test_grids_of_training_come_every_n_steps_from_a_model_in_eval_mode(tmp_path) -> None:
    module = SmallModule()
    grid = SampleGrid(every_n_steps=2, prompts=["a", "b"], seeds=[1, 2])
    state = torch.get_rng_state()
    small_trainer(tmp_path, [grid]).fit(module, datamodule=SmallData(steps=5))
    assert torch.equal(torch.get_rng_state(), state)
    written = sorted(path.name for path in (tmp_path / "run" / "v" / "grids").iterdir())
    assert written == ["000002.png", "000004.png"]
    assert module.backbone.was_training == [False] * 4
    assert module.backbone.dropout.training


def test_prompts_of_grids_follow_the_subjects(tmp_path) -> None:
    module, data = SmallModule(), SmallData(steps=1)
    grid = SampleGrid(every_n_steps=1, prompts=["{instance} at night", "a {class}"], seeds=[0])
    data.prompts = Prompts("sks dog", "dog")
    small_trainer(tmp_path, [grid]).fit(module, datamodule=data)
    assert module.backbone.asked == ["sks dog at night", "a dog"]
    data.subjects = {"dog": data, "another": SmallData()}
    data.subjects["another"].prompts = Prompts("bhj dog", "dog")
    module.backbone.asked = []
    small_trainer(tmp_path, [grid]).fit(module, datamodule=data)
    assert module.backbone.asked == ["sks dog at night", "bhj dog at night", "a dog"]


def test_accumulated_batches_draw_one_grid(tmp_path) -> None:
    module = SmallModule()
    grid = SampleGrid(every_n_steps=1, prompts=["a"])
    trainer = small_trainer(tmp_path, [grid], accumulate_grad_batches=3)
    trainer.fit(module, datamodule=SmallData(steps=6))
    assert len(module.backbone.was_training) == 2


def test_a_rehearsal_draws_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = SampleGrid(every_n_steps=1, prompts=["a"])
    trainer = small_trainer(tmp_path, [grid], fast_dev_run=2)
    trainer.fit(SmallModule(), datamodule=SmallData(steps=2))
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every_n_steps": 5}, r"every_n_steps is 5, but SampleGrid\.prompts"),
        ({"every_n_steps": 5, "prompts": ["a"], "seeds": []}, r"SampleGrid\.seeds is empty"),
        ({"columns": 0}, r"SampleGrid\.columns is 0"),
        ({"side": 2}, r"SampleGrid\.side is 2; it must be at least 8"),
    ],
)
def test_impossible_grids_are_refused(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        SampleGrid(**options)


def test_predicted_images_lie_beside_their_prompts(tmp_path) -> None:
    predict(tmp_path, SaveImages())
    folder = tmp_path / "run" / "v" / "images"
    described = rows(folder / "metadata.jsonl")
    assert [row["text"] for row in described] == [p for p in PROMPTS for _ in range(4)]
    assert sorted(p.name for p in folder.glob("*.png")) == [r["file_name"] for r in described]


def test_images_of_somebody_else_are_not_overwritten(tmp_path) -> None:
    output = tmp_path / "mine"
    predict(tmp_path, SaveImages(str(output)))
    before = (output / "00000.png").stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"mine already holds images; set SaveImages\.output"):
        predict(tmp_path, SaveImages(str(output)))
    assert (output / "00000.png").stat().st_mtime_ns == before
    predict(tmp_path, SaveImages(str(output), overwrite=True))
    assert (output / "00000.png").stat().st_mtime_ns > before


def test_wandb_offline_gets_pictures_and_a_table_and_asks_for_nothing(
    tmp_path, monkeypatch
) -> None:
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb_logger = WandbLogger(project="test", save_dir=str(tmp_path), offline=True)
    loggers = [CSVLogger(str(tmp_path), name="run", version="v"), wandb_logger]
    grid = SampleGrid(every_n_steps=3, prompts=["a"], side=16)
    callbacks = [Evaluation(max_logged_images=5), ClipAlignment(Colours()), grid]
    trainer = small_trainer(tmp_path, callbacks, logger=loggers)
    trainer.fit(SmallModule(), datamodule=SmallData(steps=3))
    trainer.test(SmallModule(), datamodule=SmallData(), verbose=False)
    wandb_logger.experiment.finish()
    (media,) = tmp_path.glob("wandb/offline-run-*/files/media")
    pictures = {path.relative_to(media).parent.as_posix() for path in media.rglob("*.png")}
    assert {"images/samples", "images/eval", "images/train"} <= pictures
    assert len(list(media.glob("images/samples/tuned*.png"))) == 5
    (table,) = media.rglob("*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["metric", "value", "low", "high", "n"]
    assert {row[0] for row in content["data"]} == {
        f"{arm}/{name}" for arm in ("eval", "base") for name in ("clip_t", "clip_i")
    }


def test_the_wandb_fragment_is_an_offline_logger() -> None:
    import yaml

    text = (Path(__file__).parents[2] / "configs" / "loggers" / "wandb.yaml").read_text()
    (logger,) = yaml.safe_load(text)["trainer"]["logger"]
    assert logger["class_path"].endswith(".WandbLogger")
    assert logger["init_args"]["offline"] is True
