"""Gradients are gone after a step, so that they do not stand beside the next forward pass:
python -m pytest tests/modules/test_gradients_go.py"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from test_exact_runs import parts, trainer


class Kept(pl.Callback):
    """How many tensors have a gradient when a batch begins."""

    def __init__(self) -> None:
        self.at: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.at.append(sum(p.grad is not None for p in pl_module.parameters()))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_go_with_the_step(
    accumulate: int, small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    module, data = parts(small_sd, photos)
    kept = Kept()
    options = {"enable_checkpointing": False, "accumulate_grad_batches": accumulate}
    trainer(tmp_path, 2, kept, **options).fit(module, data)
    if accumulate == 1:
        assert kept.at == [0, 0]
    else:
        assert [bool(count) for count in kept.at] == [False, True, False, True]
