"""What one process cannot ask a divided model: python -m pytest tests/callbacks/test_divided.py"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_run import SmallModule

from shortcut_lightning.callbacks import Membership, SampleGrid
from shortcut_lightning.callbacks.look import Look
from shortcut_lightning.modules.fully_sharded import FullySharded


class Alone(FullySharded):
    """One of the processes, which has reached no other yet."""

    is_global_zero = True

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj


def trainer(folder: Path, world_size: int = 2) -> Any:
    return SimpleNamespace(
        strategy=Alone(),
        world_size=world_size,
        is_global_zero=True,
        global_step=10,
        log_dir=str(folder),
        fast_dev_run=False,
        callbacks=[],
        should_stop=False,
    )


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Membership(), "Membership .*; leave it out of trainer.callbacks."),
        (SampleGrid(every_n_steps=5, prompts=["a"]), "SampleGrid.every_n_steps .*; set it to 0."),
        (Look(every_n_steps=5), "Look.every_n_steps .*; set it to 0."),
    ],
)
def test_what_one_process_asks_alone_is_refused(
    callback: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"trainer.strategy Alone: {message}"):
        callback.setup(trainer(tmp_path), SmallModule(), "fit")
    callback.setup(trainer(tmp_path), SmallModule(), "test")  # it is whole again by then
    callback.setup(trainer(tmp_path, 1), SmallModule(), "fit")


def test_without_regular_ones_they_stay(tmp_path: Path) -> None:
    for callback in (Look(), SampleGrid()):
        callback.setup(trainer(tmp_path), SmallModule(), "fit")


def test_a_look_that_is_asked_for_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And an end that is asked for comes."""
    for name in ("look", "stop"):
        (tmp_path / name).touch()
    run = trainer(tmp_path)
    Look().on_train_batch_end(run, SmallModule(), None, None, 0)
    assert "A look was asked for, but under Alone there is none" in caplog.text
    assert run.should_stop
    assert [each.name for each in tmp_path.iterdir()] == []
