"""Two processes measure what one does. Run: pytest tests/callbacks/test_two_processes.py"""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from small_run import Colours, SmallData, SmallModule, rows, small_trainer

from shortcut_lightning.callbacks import (
    ClipAlignment,
    Evaluation,
    FrechetDistance,
    IdentityMatch,
    ReportWriter,
    SaveImages,
)


class Leave(Callback):
    """Each rank writes the numbers it sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_test_end(self, trainer, pl_module) -> None:
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(seen))


def run(folder: Path, **options) -> dict[str, float]:
    folder.mkdir()
    callbacks = [
        Evaluation(),
        ClipAlignment(Colours()),
        IdentityMatch(Colours()),
        FrechetDistance(Colours()),
        ReportWriter(),
        SaveImages(str(folder / "predicted")),
        Leave(folder),
    ]
    trainer = small_trainer(folder, callbacks, **options)
    trainer.test(SmallModule(), datamodule=SmallData(per_prompt=3), verbose=False)
    predict = small_trainer(folder, callbacks, **options)
    predict.predict(SmallModule(), datamodule=SmallData(per_prompt=3), return_predictions=False)
    return json.loads((folder / "rank0.json").read_text())


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    one = run(tmp_path / "one")
    two = run(tmp_path / "two", devices=2, strategy="ddp_fork")
    assert len(one) == 10
    assert two == pytest.approx(one, rel=1e-6)
    assert json.loads((tmp_path / "two" / "rank1.json").read_text()) == two
    for part in ("run/v/samples/tuned", "run/v/samples/base", "predicted"):
        once, twice = (rows(tmp_path / n / part / "metadata.jsonl") for n in ("one", "two"))
        assert once == twice
        assert len(once) == len(list((tmp_path / "two" / part).glob("*.png"))) == 9
    report = json.loads((tmp_path / "two" / "run" / "v" / "report.json").read_text())
    assert report["metrics"]["eval/clip_t"]["n"] == 9
