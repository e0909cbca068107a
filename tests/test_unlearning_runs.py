"""The tables of the erasing runs, and the shell script of the model-removal rows in miniature:
pytest tests/test_unlearning_runs.py [-m slow]
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.erasing_table import Arm, answer, difference, of_runs, ordering

ROOT = Path(__file__).parents[1]
ROWS = (
    "contaminated",
    "negative prompt",
    "SLD medium",
    "SLD max",
    "UCE",
    "ESD cross_attention",
    "ESD others",
    "FMN",
)


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
    environment = os.environ | {"PATH": os.pathsep.join(paths), "OPTIONS": few, "RUNS": "1"}

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
    reports = sorted(tmp_path.glob("runs/1/qr/*/version_0/report.json"))
    assert {report.parts[-3] for report in reports} == {*ROWS, "words for places"}
    run(*script)  # nothing is done twice
    assert len(list(tmp_path.glob("runs/1/qr/*/version_*"))) == len(reports)
    table = run(sys.executable, "tests/benchmarks/erasing_table.py", "--runs", "runs")
    assert all(f"| {row} |" in table for row in ROWS)


def arm(**ratios: float) -> Arm:
    """Runs of fifty images each."""
    made = Arm()
    for run, value in ratios.items():
        made.add(run, {"eval/concept_ratio": {"value": value, "n": 50}})
    return made


def test_arms_are_compared_by_the_runs_that_both_have() -> None:
    """A run of one arm alone would tip the balance here, and says nothing."""
    first, second = arm(a=0.9, b=0.9, c=0.9), arm(a=0.5, b=0.5, c=0.5)
    assert difference(first, second)[0] == pytest.approx(0.4)
    tipped = arm(a=0.5, b=0.5, c=0.5, d=1.0, e=1.0, f=1.0)
    assert difference(first, tipped) == difference(first, second)
    assert answer(first, ">>", tipped) == "holds"
    assert tipped.images == 300
    assert ordering({"plain/none": first, "name/none": arm(d=0.1)}) == []


def test_the_newest_version_of_a_run_counts(tmp_path: Path) -> None:
    """Ten is newer than nine, whichever report was touched last."""
    for version, value in ((10, 0.2), (9, 0.8), (0, 1.0)):
        folder = tmp_path / "2" / "qr" / "UCE" / f"version_{version}"
        folder.mkdir(parents=True)
        metrics = {"eval/concept_ratio": {"value": value, "n": 50}}
        (folder / "report.json").write_text(json.dumps({"metrics": metrics}))
    found = of_runs(tmp_path)["qr"]["UCE"]
    assert found.counts == {"2": (10, 50)}
    assert found.values["eval/concept_ratio"] == [0.2]
