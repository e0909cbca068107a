"""The verb `bench` in one piece, on small random models: python -m pytest tests/bench"""

import json
import os
import re
import signal
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from shortcut_lightning import stopping
from shortcut_lightning.bench.matrix import expanded
from shortcut_lightning.cli import main
from shortcut_lightning.cli.bench import bench
from shortcut_lightning.cli.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs" / "bench"


@pytest.fixture
def config(small_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cell of one step that needs no weights, in a matrix of two arms and two samplings."""
    monkeypatch.chdir(tmp_path)
    cell = yaml.safe_load((CONFIGS / "cell.yaml").read_text())
    cell["trainer"] |= {
        "max_steps": 1,
        "accelerator": "cpu",
        "callbacks": [
            {"class_path": name} for name in ("EMA", "Evaluation", "HighFrequency", "ReportWriter")
        ],
    }
    cell["model"]["init_args"]["pretrained_model_name_or_path"] = str(small_sd)
    cell["model"]["init_args"] |= {"sampling": {"num_inference_steps": 1}, "learning_rate": 0.03}
    cell["data"]["init_args"] |= {
        "num_class_images": 1,
        "train_batch_size": 1,
        "evaluation": {"images_per_prompt": 1, "prompts": ["a photo of sks person"]},
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
            "sampling": {"plain": {}, "again": {}, "negative": {"data.decoupling.negative": True}},
        },
        "sampling": "sampling",
        "skip": ["clean/again", "clean/negative"],
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
    assert "4 of 4 cells" in out
    assert "### eval/high_frequency" in out
    runs = sorted((tmp_path / "out").rglob("report.json"))
    assert len(runs) == 4
    evaluated = next(run for run in runs if "random-negative" in str(run))
    config_of_run = yaml.safe_load((evaluated.parent / "config.yaml").read_text())
    assert config_of_run["data"]["init_args"]["decoupling"]["negative"] is True
    rows = (evaluated.parent / "samples/tuned/metadata.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["negative_prompt"] == "noisy, lowres, artifact, pattern"
    seconds = json.loads(evaluated.read_text())["seconds"]
    assert "class images" not in seconds  # an evaluation of what was trained before
    # With an average of the weights too, a checkpoint gives the pictures that training gave.
    first, again = (run.parent for run in runs if re.search("random-(plain|again)", str(run)))
    assert (first / "samples/tuned/00000.png").read_bytes() == (
        again / "samples/tuned/00000.png"
    ).read_bytes()
    for name in ("table.csv", "table.md", "table.html"):
        assert (tmp_path / "out" / name).is_file()
    times = [run.stat().st_mtime_ns for run in runs]
    main(["bench", "--config", str(config)])
    assert [run.stat().st_mtime_ns for run in sorted((tmp_path / "out").rglob("report.json"))] == (
        times
    )


def test_a_part_of_the_arms_leaves_the_other_arms_claims(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = yaml.safe_load(config.read_text())
    claim = {"metric": "eval/high_frequency", "against": "clean/plain"}
    matrix["claims"] = [
        claim | {"text": "Noise stays", "arm": "random/plain"},
        claim | {"text": "Words help", "arm": "random/negative"},
    ]
    config.write_text(yaml.safe_dump(matrix, sort_keys=False))
    part = '--arms={"clean/plain": 0, "random/plain": 0}'
    main(["bench", "--config", str(config), "--tables=only", part])
    said = capsys.readouterr()
    assert "1 of 2 are about other arms than --arms" in said.err
    assert "0 of 2 cells" in said.out


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
    assert "twins: no.yaml is no file beside the matrix" in mistake(
        "--config", str(config), '--twins=["no.yaml"]', f"--rows={tmp_path}"
    )
    assert "sampling is 'words', which is no factor" in mistake(
        "--config", str(config), "--sampling=words"
    )
    assert "data.atack" in mistake("--config", str(config), '--settings={"data.atack": "x"}')


@pytest.mark.parametrize("error", [AssertionError(), ValueError("\nbecause")])
def test_a_cell_that_fails_without_words_is_named(config: Path, error: Exception) -> None:
    def run(words: list[str]) -> None:
        given = dict(w.removeprefix("--").split("=", 1) for w in words if "=" in w)
        if any(Path("out").rglob("report.json")):
            raise error
        folder = Path(given["output_dir"], given["name"], "version_0")
        folder.mkdir(parents=True)
        (folder / "report.json").write_text('{"metrics": {}, "seconds": {}, "versions": {}}')

    said = str(error).strip() or repr(error)
    with pytest.raises(UserError, match=f"1 cells failed, .*: {re.escape(said)}\n"):
        bench(["--config", str(config), '--arms={"clean/plain": 0, "random/plain": 0}',
               "--tables=none"], run)  # fmt: skip


@pytest.mark.slow
def test_a_subject_of_a_sweep_by_two_workers(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As `wandb agent` starts it, offline: the command line of the shipped sweep, the run's id in
    the environment. The cells are not part of that run."""
    sweep = yaml.safe_load((CONFIGS / "sweep.yaml").read_text())
    subjects = sweep["parameters"]["subjects"]["values"]
    whole = yaml.safe_load((CONFIGS / "full.yaml").read_text())["subjects"]
    assert [json.loads(each) for each in subjects] == [[s] for s in expanded(whole[0])]
    words = [str(config) if word.endswith(".yaml") else word for word in sweep["command"]]
    assert words[:4] == ["${env}", "python", "${program}", "bench"]
    assert words[-1] == "${args}"
    monkeypatch.setenv("WANDB_SWEEP_ID", "0123abcd")
    monkeypatch.setenv("WANDB_RUN_ID", "run1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    main([*words[3:-1], f"--subjects={subjects[0]}", "--workers=2"])
    assert len(list((tmp_path / "out").rglob("report.json"))) == 4
    assert [path.name[-4:] for path in (tmp_path / "wandb").glob("offline-run-*")] == ["run1"]
    assert "Another process is at work on pocket:0, seed 0" in capfd.readouterr().err
    assert not (tmp_path / "out" / "table.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("matrix", ["smoke", "small"])
def test_shipped_matrices_run_on_a_folder_of_sd_2_1_s_layout(
    matrix: str, small_sd_v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["--subjects=[pocket:0]", "--settings.trainer.max_steps=1"]
    few = ["--settings.data.num_class_images=1", "--settings.model.sampling.num_inference_steps=1"]
    few += ["--settings.data.evaluation.images_per_prompt=1"]
    model = f"--settings.model.pretrained_model_name_or_path={small_sd_v}"
    out = f"--output_dir={tmp_path}"
    main(["bench", "--config", str(CONFIGS / f"{matrix}.yaml"), *one, *few, model, out])
    assert re.search(r"^(\d+) of \1 cells", capsys.readouterr().out, re.MULTILINE)


class Killed(Callback):
    """Somebody ends the program while the last batch is evaluated."""

    def on_test_end(self, trainer: object, pl_module: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_matrix_and_not_one_cell(config: Path) -> None:
    started = []

    def run(command: list[str]) -> None:
        started.append(command)
        Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            callbacks=[Killed()],
            limit_test_batches=1,
        ).test(BoringModel(), verbose=False)

    before = signal.getsignal(signal.SIGTERM)
    with stopping.listening(), pytest.raises(stopping.Stopped) as end:
        bench(["--config", str(config)], run)
    assert end.value.code == 128 + signal.SIGTERM
    assert "the same command goes on" in end.value.kept
    assert len(started) == 1
    assert signal.getsignal(signal.SIGTERM) is before
