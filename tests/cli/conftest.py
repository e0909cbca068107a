"""Fixtures for the command line: a scratch folder, and a way to read what a mistake prints."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

RECIPE = """
model:
  class_path: DreamBooth
  init_args: {{pretrained_model_name_or_path: {model}, learning_rate: 1.0e-3}}
data:
  class_path: PersonalizationDataModule
  init_args:
    instance_data_dir: "pocket:0"
    instance_prompt: a photo of sks person
    training: {{repeats: 1}}
trainer:
  max_steps: 4
  limit_val_batches: 1
  num_sanity_val_steps: 0
  accelerator: cpu
  enable_progress_bar: false
  logger: true
evaluate_after_fit: false
"""


@pytest.fixture(autouse=True)
def _in_a_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHORTCUT_LIGHTNING_DEBUG", raising=False)


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must end with exit code 2; returns what it said."""

    def run(*args: str) -> str:
        from shortcut_lightning.cli import main

        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(list(args))
        out, err = capsys.readouterr()
        assert exit_.value.code == 2
        errors = err[err.index("error: ") :].rstrip("\n")
        assert len(errors.splitlines()) <= 2, errors
        assert "Traceback" not in err
        assert "usage" not in out + err
        return errors

    return run


@pytest.fixture
def recipe(small_sd: Path, tmp_path: Path) -> str:
    """A config file that trains a model with random weights for four steps."""
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE.format(model=small_sd))
    return str(file)
