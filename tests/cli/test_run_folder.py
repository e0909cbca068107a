"""Run folders, loggers and verbs: `pytest tests/cli/test_run_folder.py`."""

import csv
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import cli_fakes
import pytest
import torch
import yaml
from PIL import Image

from shortcut_lightning.batch import PromptBatch
from shortcut_lightning.cli import app, main, verbs
from shortcut_lightning.cli.run_folder import claim_version
from shortcut_lightning.modules.dreambooth import DreamBooth

REPOSITORY = Path(__file__).parents[2]


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").open()))


def test_fit_leaves_a_complete_folder(tmp_path: Path) -> None:
    main(["fit", "--config", cli_fakes.write_config(tmp_path)])
    run = tmp_path / "runs/small/version_0"
    assert yaml.safe_load((run / "config.yaml").read_text())["name"] == "small"
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert any(row["eval/loss"] for row in rows(run))  # the verb `test` ran at the end


def test_a_run_starts_again_from_its_config_in_a_new_folder(tmp_path: Path) -> None:
    main(["fit", "--config", cli_fakes.write_config(tmp_path)])
    first = tmp_path / "runs/small/version_0"
    main(["fit", "--config", str(first / "config.yaml")])
    second = tmp_path / "runs/small/version_1"
    assert (second / "config.yaml").read_text() == (first / "config.yaml").read_text()
    assert rows(second) == rows(first)
    weights = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (first, second)
    ]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_evaluation_can_be_left_out_and_the_folder_named(tmp_path: Path) -> None:
    config = cli_fakes.write_config(tmp_path)
    args = ["--evaluate_after_fit=false", "--name=other", "--output_dir=out"]
    main(["fit", "--config", config, *args, "--trainer.log_every_n_steps=1"])
    table = rows(tmp_path / "out/other/version_0")
    assert sum(row["train/loss"] != "" for row in table) == 4
    assert "eval/loss" not in table[0]


def test_fast_dev_run_leaves_nothing(tmp_path: Path) -> None:
    main(["fit", "--config", cli_fakes.write_config(tmp_path), "--trainer.fast_dev_run=true"])
    assert not (tmp_path / "runs").exists()


def test_test_says_which_weights_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--config", cli_fakes.write_config(tmp_path)])
    fit = tmp_path / "runs/small/version_0"
    capsys.readouterr()
    main(["test", "--config", str(fit / "config.yaml")])
    assert "without --ckpt_path the model is as it was before training" in capsys.readouterr().err
    main(["test", "--config", str(fit / "config.yaml"), "--ckpt_path=last"])
    trained = [row["eval/loss"] for row in rows(fit) if row["eval/loss"]]
    versions = [tmp_path / f"runs/small/version_{i}" for i in (1, 2)]
    before, after = ([row["eval/loss"] for row in rows(run)] for run in versions)
    assert after == trained
    assert before != trained


def test_a_checkpoint_callback_of_the_user_stays_alone(tmp_path: Path) -> None:
    config = cli_fakes.write_config(tmp_path)
    args = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename=mine"]
    main(["fit", "--config", config, *args])
    saved = (tmp_path / "runs/small/version_0/checkpoints").iterdir()
    assert [path.name for path in saved] == ["mine.ckpt"]


def test_csv_comes_first_and_wandb_writes_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of whoever runs the tests
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    main(["fit", "--config", cli_fakes.write_config(tmp_path), "--trainer.logger=WandbLogger"])
    err = capsys.readouterr().err
    assert "W&B: no API key; logging offline" in err
    assert "anonymous" not in err
    run = tmp_path / "runs/small/version_0"
    assert any(row["eval/loss"] for row in rows(run))
    (wandb_run,) = (run / "wandb").glob("offline-run-*")
    assert list(wandb_run.glob("*.wandb"))
    saved = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["logger"]
    assert saved["init_args"]["save_dir"] == "."  # or a second run would write into the first


def test_versions_are_claimed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [claim_version(tmp_path / "a") for _ in range(3)] == [0, 1, 2]
    monkeypatch.setenv("LOCAL_RANK", "1")
    claim_version(tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_verb_is_a_line_and_a_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: object
) -> None:
    calls = []

    def protect(self: object, datamodule: cli_fakes.Points, output: Path, copies: int = 1) -> None:
        """Writes protected photographs."""
        calls.append((datamodule.side, output, copies))

    monkeypatch.setitem(verbs.VERBS, "protect", "Protect photographs.")
    monkeypatch.setattr(app.ShortcutTrainer, "protect", protect, raising=False)
    main(["protect", "--data=Points", "--data.side=9", "--output=out", "--copies=3"])
    assert calls == [(9, Path("out"), 3)]


def test_nothing_useless_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = cli_fakes.write_config(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        main(["fit", "--config", config])
    assert [str(w.message) for w in caught] == []
    assert "Tip" not in capsys.readouterr().err


def run_script(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parent), str(REPOSITORY)])
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_share_one_folder(tmp_path: Path) -> None:
    config = cli_fakes.write_config(tmp_path)
    done = run_script(
        tmp_path, "fit", "-c", config, "--trainer.devices=2", "--trainer.strategy=ddp"
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs/small").iterdir()] == ["version_0"]
    run = tmp_path / "runs/small/version_0"
    assert (run / "config.yaml").is_file()
    assert (run / "checkpoints/last.ckpt").is_file()
    assert any(row["eval/loss"] for row in rows(run))


@pytest.mark.slow
def test_the_script_ends_with_code_2_after_a_mistake(tmp_path: Path) -> None:
    config = cli_fakes.write_config(tmp_path)
    done = run_script(tmp_path, "fit", "-c", config, "--trainer.max_stps=3")
    assert done.returncode == 2
    expected = "error: no option 'trainer.max_stps'; did you mean 'trainer.max_steps'?\n"
    assert done.stderr == expected


@pytest.mark.parametrize("name", ["..", "a/../../b", "/tmp/elsewhere", "."])
def test_a_name_stays_inside_the_output_folder(
    name: str, tmp_path: Path, mistake: Callable[..., str]
) -> None:
    config = cli_fakes.write_config(tmp_path)
    before = sorted(tmp_path.parent.rglob("version_*"))
    said = mistake("fit", "--config", config, f"--name={name}")
    assert said.startswith(f"error: name: '{name}' does not lie inside --output_dir")
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    said = mistake("fit", "--config", config, *logger, f"--trainer.logger.name={name}")
    assert "trainer.logger.name" in said
    assert "the save_dir of CSVLogger" in said
    version = f"--trainer.logger.version={name}"
    assert "trainer.logger.version" in mistake("fit", "--config", config, *logger, version)
    assert sorted(tmp_path.parent.rglob("version_*")) == before
    assert not (tmp_path / "runs").exists()


def test_a_name_may_have_folders(tmp_path: Path) -> None:
    main(["fit", "--config", cli_fakes.write_config(tmp_path), "--name=dogs/first"])
    assert (tmp_path / "runs/dogs/first/version_0/metrics.csv").is_file()


@pytest.mark.parametrize("taken", [False, True])
def test_pictures_are_made_only_where_a_callback_takes_them(
    taken: bool,
    small_sd: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made: list[int] = []

    def sample(self: DreamBooth, batch: PromptBatch) -> torch.Tensor:
        made.extend(batch.ids.tolist())
        return torch.zeros(len(batch.prompts), 3, 8, 8)

    monkeypatch.setattr(DreamBooth, "sample", sample)
    (tmp_path / "photos").mkdir()
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "photos/me.png")
    callbacks = ["Evaluation", "ReportWriter"] if taken else ["Throughput", "ReportWriter"]
    main(
        [
            *("fit", "--model=DreamBooth", "--data=PersonalizationDataModule", "--name=run"),
            f"--model.pretrained_model_name_or_path={small_sd}",
            f"--data.instance_data_dir={tmp_path / 'photos'}",
            "--data.instance_prompt=a photo of sks dog",
            f"--data.cache_dir={tmp_path / 'cache'}",
            "--data.evaluation.images_per_prompt=2",
            *(f"--trainer.callbacks+={name}" for name in callbacks),
            *("--trainer.accelerator=cpu", "--trainer.max_steps=1"),
        ]
    )
    assert bool(made) is taken
    assert ("no pictures are made" in capsys.readouterr().err) is not taken
    assert (tmp_path / "runs/run/version_0/report.html").is_file()
