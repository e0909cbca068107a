"""The verb `bench` in one piece, on a small random model: python -m pytest tests/bench"""

import json
from pathlib import Path

import pytest
import yaml

from shortcut_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs" / "bench"


@pytest.fixture
def config(small_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cell of one step that needs no weights, in a matrix of two arms and two samplings."""
    monkeypatch.chdir(tmp_path)
    cell = yaml.safe_load((CONFIGS / "cell.yaml").read_text())
    cell["trainer"] |= {
        "max_steps": 1,
        "accelerator": "cpu",
        "callbacks": [{"class_path": n} for n in ("Evaluation", "HighFrequency", "ReportWriter")],
    }
    cell["model"]["init_args"]["pretrained_model_name_or_path"] = str(small_sd)
    cell["model"]["init_args"]["num_inference_steps"] = 1
    cell["data"]["init_args"] |= {
        "num_class_images": 1,
        "train_batch_size": 1,
        "images_per_prompt": 1,
        "eval_prompts": ["a photo of sks person"],
    }
    (tmp_path / "cell.yaml").write_text(yaml.safe_dump(cell))
    matrix = {
        "base": ["cell.yaml"],
        "subjects": ["pocket:0"],
        "factors": {
            "attack": {
                "clean": {},
                "random": {"data.attack": str(CONFIGS.parent / "attacks" / "random_noise.yaml")},
            },
            "sampling": {"plain": {}, "negative": {"data.decoupling.negative": True}},
        },
        "sampling": "sampling",
        "skip": ["clean/negative"],
        "against": ["clean/plain"],
        "output_dir": "out",
    }
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(matrix, sort_keys=False))
    return tmp_path / "matrix.yaml"


def test_cells_run_and_one_table_comes_out(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["bench", "--config", str(config)])
    out = capsys.readouterr().out
    assert "3 of 3 cells" in out
    assert "### eval/high_frequency" in out
    runs = sorted((tmp_path / "out").rglob("report.json"))
    assert len(runs) == 3
    evaluated = next(run for run in runs if "random-negative" in str(run))
    config_of_run = yaml.safe_load((evaluated.parent / "config.yaml").read_text())
    assert config_of_run["data"]["init_args"]["decoupling"]["negative"] is True
    rows = (evaluated.parent / "samples/tuned/metadata.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["negative_prompt"] == "noisy, lowres, artifact, pattern"
    seconds = json.loads(evaluated.read_text())["seconds"]
    assert "class images" not in seconds  # an evaluation of what was trained before
    for name in ("table.csv", "table.md", "table.html"):
        assert (tmp_path / "out" / name).is_file()
    times = [run.stat().st_mtime_ns for run in runs]
    main(["bench", "--config", str(config)])
    assert [run.stat().st_mtime_ns for run in sorted((tmp_path / "out").rglob("report.json"))] == (
        times
    )


def test_mistakes_cost_a_line(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def mistake(*args: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["bench", *args])
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "no option 'subject'; did you mean 'subjects'?" in mistake(
        "--config", str(config), "--subject=x"
    )
    assert "--shard is '3/2'" in mistake("--config", str(config), "--shard=3/2")
    assert "sampling is 'words', which is no factor" in mistake(
        "--config", str(config), "--sampling=words"
    )
    assert "data.atack" in mistake("--config", str(config), '--settings={"data.atack": "x"}')
