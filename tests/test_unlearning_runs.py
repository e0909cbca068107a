"""The shell script of the model-removal rows, in miniature: pytest -m slow -k unlearning_rows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = ("contaminated", "negative prompt", "UCE", "ESD cross_attention", "ESD others")


@pytest.mark.slow
def test_unlearning_rows_run_and_make_a_table(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    for name in ("configs", "train.py", "shortcut_lightning", "tests"):  # `sets` are made here
        (tmp_path / name).symlink_to(ROOT / name)
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    few = (
        "--trainer.max_steps 1 --data.images_per_prompt 1 --model.num_inference_steps 1 "
        "--data.train_batch_size 2 --trainer.accelerator cpu"
    )
    environment = os.environ | {"PATH": os.pathsep.join(paths), "OPTIONS": few}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run(
        *(sys.executable, "-m", "shortcut_lightning.data.implicit_concepts", "sets/qr"),
        *("configs/concepts/qr.yaml", "--count", "6", "--references", "4"),
        *("--prompt", "a photo of a person {place}"),
    )
    script = ("sh", "configs/erasing/table/unlearning.sh", "runs", "qr")
    run(*script)
    reports = sorted(tmp_path.glob("runs/qr/*/version_0/report.json"))
    assert {report.parts[-3] for report in reports} == {*ROWS, "words for places"}
    run(*script)  # nothing is done twice
    assert len(list(tmp_path.glob("runs/qr/*/version_*"))) == len(reports)
    table = run(sys.executable, "tests/benchmarks/erasing_table.py", "--runs", "runs")
    assert all(f"| {row} |" in table for row in ROWS)
