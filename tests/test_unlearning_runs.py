"""The tables of erasing runs, and the shell script of the model-removal rows in miniature:
pytest tests/test_unlearning_runs.py [-m slow]
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shortcut_lightning.bench.rows import Ran, Rows, Value
from shortcut_lightning.results.erasing import Arm, ErasingTables, answer, difference, of_runs

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
        "--trainer.max_steps 1 --data.evaluation.images_per_prompt 1 "
        "--model.sampling.num_inference_steps 1 "
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
    keep = ("-m", "shortcut_lightning.results.erasing", "--runs", "runs", "--keep", "rows")
    table = run(sys.executable, *keep)
    assert all(f"| {row} |" in table for row in ROWS)
    assert len(Rows.read(tmp_path / "rows").ran) == len(reports)


def arm(**ratios: float) -> Arm:
    """Runs of fifty images each."""
    made = Arm()
    for run, value in ratios.items():
        made.add(run, [Value("", "", 0, "eval/concept_ratio", value, 50)])
    return made


def test_arms_are_compared_by_the_runs_that_both_have() -> None:
    """A run of one arm alone would tip the balance here, and says nothing."""
    first, second = arm(a=0.9, b=0.9, c=0.9), arm(a=0.5, b=0.5, c=0.5)
    assert difference(first, second)[0] == pytest.approx(0.4)
    tipped = arm(a=0.5, b=0.5, c=0.5, d=1.0, e=1.0, f=1.0)
    assert difference(first, tipped) == difference(first, second)
    assert answer(first, ">>", tipped) == "holds"
    assert tipped.images == 300


def test_the_newest_version_of_a_run_counts_and_its_rows_make_a_table(tmp_path: Path) -> None:
    """Ten is newer than nine, whichever report was touched last; an arm without a run that the
    other has is not compared with it."""
    for version, value in ((10, 0.2), (9, 0.8), (0, 1.0)):
        report(tmp_path / "runs" / "2" / "qr" / "name" / f"version_{version}", value)
    report(tmp_path / "runs" / "1" / "qr" / "plain" / "version_0", 0.9)
    of_runs(tmp_path / "runs").write(tmp_path / "rows")
    tables = ErasingTables(tmp_path / "rows")
    assert (tables.concepts, tables.cells, tables.runs) == (["qr"], 2, 1)
    assert tables.arms["qr"]["name"].counts == {"2": (10, 50)}
    assert tables.ratio("name", "qr").startswith("0.20 [0.11, 0.33]")
    assert tables.ratio("full", "qr") == "–"
    assert "| plain | 0.90 [0.79, 0.96] | 50 | 1 |" in tables.table("qr")
    assert tables.ordering("qr") == ""
    report(tmp_path / "runs" / "2" / "qr" / "plain" / "version_0", 0.9)
    of_runs(tmp_path / "runs").write(tmp_path / "rows")
    said = ErasingTables(tmp_path / "rows").ordering("qr")
    assert (
        "| plain >> name | +0.70 [+0.53, +0.80] | +0.70 | undecided (these runs: holds) |" in said
    )


def test_earlier_ratios_stand_beside_those_of_as_many_runs(tmp_path: Path) -> None:
    report(tmp_path / "runs" / "1" / "qr" / "plain" / "version_0", 0.9)
    report(tmp_path / "runs" / "1" / "qr" / "name" / "version_0", 0.8)
    report(tmp_path / "runs" / "1" / "qr" / "full" / "version_0", 0.1)
    of_runs(tmp_path / "runs").write(tmp_path / "rows")
    assert ErasingTables(tmp_path / "rows").again() == ""
    earlier = tmp_path / "rows" / "earlier.csv"
    said = "concept,arm,value,runs\nqr,plain,0.90,1\nqr,full,0.5,3\nqr,none of these,0.5,1\n"
    earlier.write_text(said)
    count = "of 1 come out in every digit that was given"
    assert ErasingTables(tmp_path / "rows").again() == f"1 {count}."
    earlier.write_text(said + "qr,name,0.7,1\n")
    again = ErasingTables(tmp_path / "rows").again()
    assert again.startswith("1 of 2 come out in every digit that was given; the others:")
    assert "| qr | name | 0.7 | 0.8 |" in again


def test_cells_of_one_run_are_added_up(tmp_path: Path) -> None:
    """Several subjects, where seeds are the runs."""
    rows = Rows()
    for subject, value in (("a", 1.0), ("b", 0.0)):
        name = ("plain", subject, 0)
        rows.ran[name] = Ran(*name, "", "", "", "", 1.0, "")
        rows.values[name] = [Value(*name, "eval/concept_ratio", value, 100)]
    rows.write(tmp_path)
    found = ErasingTables(tmp_path, ["arm"])
    assert found.arms[""]["plain"].counts == {"0": (100, 200)}
    assert found.ratio("plain").startswith("0.50 ")
    with pytest.raises(ValueError, match="'plain' does not have the parts arm / sampling"):
        ErasingTables(tmp_path, ["arm", "sampling"])


def report(folder: Path, ratio: float) -> None:
    """What a run leaves, with one metric over fifty images."""
    folder.mkdir(parents=True)
    facts = {"versions": {"torch": "2"}, "created": "2026-01-01", "seconds": {"sample": 2.0}}
    metrics = {"metrics": {"eval/concept_ratio": {"value": ratio, "n": 50}}}
    (folder / "report.json").write_text(json.dumps(facts | metrics))
    (folder / "config.yaml").write_text("{}\n")


def test_a_folder_without_rows_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no rows"):
        ErasingTables(tmp_path)
