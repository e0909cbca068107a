"""What a verb says while it works and at its end: python -m pytest tests/cli/test_told.py"""

import re
from pathlib import Path

import pytest

from shortcut_lightning.cli import main
from shortcut_lightning.cli.told import numbers, places
from shortcut_lightning.metrics.estimate import UNDEFINED, Estimate
from shortcut_lightning.prompts import Prompts


def recipe(small_sd: Path, *more: str) -> list[str]:
    """Options of a run of seconds on a small random model."""
    return [
        "--model=DreamBooth",
        f"--model.pretrained_model_name_or_path={small_sd}",
        "--model.sampling.num_inference_steps=1",
        "--data=PersonalizationDataModule",
        "--data.instance_data_dir=pocket:0",
        "--data.instance_prompt=a photo of sks dog",
        "--data.class_prompt=a photo of a dog",
        "--data.evaluation.images_per_prompt=1",
        "--trainer.accelerator=cpu",
        "--name=run",
        *more,
    ]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fit(small_sd: Path, steps: int, *more: str) -> None:
    callbacks = (
        "[{class_path: Evaluation}, {class_path: HighFrequency}, {class_path: ReportWriter}]"
    )
    main(
        [
            "fit",
            *recipe(small_sd, f"--trainer.max_steps={steps}", *more),
            f"--trainer.callbacks={callbacks}",
        ]
    )


def test_the_last_lines_of_fit_and_predict_say_where(
    small_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(small_sd, 3)
    out = capsys.readouterr().out
    assert re.findall(r"(?m)^(run folder|report|checkpoint) +(\S+)$", out) == [
        ("run folder", "runs/run/version_0"),
        ("report", "runs/run/version_0/report.html"),
        ("checkpoint", "runs/run/version_0/checkpoints/last.ckpt"),
    ]
    line = next(line for line in out.splitlines() if line.startswith("eval/high_frequency "))
    assert re.fullmatch(r"eval/high_frequency +0\.\d{1,6} \(.* to .*\), n 1", line)
    assert "Epoch" not in out
    assert "3/3" in out

    # A resumed run goes on counting where it was.
    fit(small_sd, 5, "--ckpt_path=last")
    out = capsys.readouterr().out
    assert "5/5" in out
    assert not re.search(r"Training.*\b[3-9]/[12]\b", out)

    main(
        [
            "predict",
            *recipe(
                small_sd, "--ckpt_path=last", "--data.evaluation.predict_prompts=['{instance}']"
            ),
        ]
    )
    out = capsys.readouterr().out
    folder = re.search(r"(?m)^images +(\S+)$", out)
    assert folder
    pictures = tmp_path / folder[1]
    assert [path.suffix for path in sorted(pictures.iterdir())] == [".png", ".jsonl"]
    assert "a photo of sks dog" in (pictures / "metadata.jsonl").read_text()


def test_prompts_about_somebody_else_are_named(
    small_sd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = "['{instance} on the beach', 'a photo of sks person', 'a {class}']"
    fit(small_sd, 1, f"--data.evaluation.prompts={asked}")
    named = [r.getMessage() for r in caplog.records if "evaluation asks for" in r.getMessage()]
    assert len(named) == 2
    assert "'a photo of sks person', which does not name the subject of 'a photo of sks" in named[0]
    report = (tmp_path / "runs/run/version_0/report.html").read_text()
    assert "its numbers are about somebody else" in report
    assert "a photo of sks dog on the beach" in report


@pytest.mark.parametrize(
    ("instance", "kind", "prompt", "stranger"),
    [
        ("a photo of sks dog", "a photo of a dog", "sks dog, running", False),
        ("a photo of sks dog", "a photo of a dog", "a photo of a dog", True),
        ("a photo of sks dog", "a photo of a dog", "a photo of sks person", True),
        ("a photo of sks dog", "", "a photo of a person", False),
        ("a photo", "a photo", "anything", False),
        ("a photo of ohwx", "a photo of a man", "ohwx at night", False),
    ],
)
def test_who_a_prompt_is_about(instance: str, kind: str, prompt: str, stranger: bool) -> None:
    assert bool(Prompts(instance, kind).strangers([prompt])) is stranger


def test_numbers_and_places(tmp_path: Path) -> None:
    said = numbers({"a": Estimate(0.123456, 0.1, 0.2, 8), "longer": UNDEFINED})
    assert said == "a       0.1235 (0.1 to 0.2), n 8\nlonger  –\n"
    (tmp_path / "export").mkdir()
    assert places(tmp_path) == f"run folder  {tmp_path}\nexport      {tmp_path / 'export'}\n"
