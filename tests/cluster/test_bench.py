"""A matrix on Ray, with runs that stand for the program's: pytest tests/cluster -m slow"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from shortcut_lightning.bench import Matrix
from shortcut_lightning.bench.on_ray import run_on_ray
from shortcut_lightning.bench.runner import Runner

FACTORS: dict[str, Any] = {
    "attack": {"clean": {}, "noise": {"data.attack": "noise.yaml"}},
    "sampling": {"plain": {}, "negative": {"data.decoupling.negative": True}},
}


class Runs:
    """Leaves a report and a checkpoint, as a run does; dies once, and fails where it is told to."""

    def __init__(self, folder: Path, fail_at: str = "") -> None:
        self.folder, self.fail_at = folder, fail_at

    def __call__(self, command: list[str]) -> None:
        options = dict(w.lstrip("-").split("=", 1) for w in command if "=" in w)
        if "noise" in options["name"] and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fail_at and self.fail_at in options["name"]:
            raise RuntimeError("power cut")
        parent = Path(options["output_dir"]) / options["name"]
        run = parent / f"version_{len(list(parent.glob('version_*')))}"
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").touch()
        entry = {"value": 1.0, "low": 1.0, "high": 1.0, "n": 4}
        report = {"metrics": {"eval/x": entry}, "seconds": {}, "process": os.getpid()}
        (run / "report.json").write_text(json.dumps(report))


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_cells_run_once_though_a_worker_is_lost_and_a_cell_fails(tmp_path: Path) -> None:
    for name in ("base", "noise"):
        (tmp_path / f"{name}.yaml").write_text("{}\n")
    matrix = Matrix(
        ["base.yaml"], FACTORS, ["pocket:0-1"], sampling="sampling", output_dir=f"{tmp_path}/out"
    )
    told: list[str] = []
    runner = Runner(matrix, tmp_path, Runs(tmp_path, "noise-negative"), told.append)
    run_on_ray(runner, 2, 0.0)
    assert (tmp_path / "died").exists()
    assert len(runner.reports()) == 6
    assert len(runner.failures) == 2
    assert "power cut" in next(iter(runner.failures.values()))
    reports = [json.loads(path.read_text()) for _, path in runner.reports()]
    assert os.getpid() not in {report["process"] for report in reports}
    again = Runner(matrix, tmp_path, Runs(tmp_path), told.append)
    run_on_ray(again, 2, 0.0)
    assert len(again.reports()) == 8
    clean = [path for path in (tmp_path / "out").rglob("report.json") if "clean" in str(path)]
    assert len(clean) == 4  # what was finished is not run again
