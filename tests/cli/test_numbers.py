"""Numbers outside their ranges, as a user gives them: by key, with exit code 2, in no time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shortcut_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
Mistake = Callable[..., str]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.learning_rate=-1", "model.learning_rate is -1; it must be above 0."),
        ("model.learning_rate=.nan", "model.learning_rate is nan; it must be above 0."),
        ("model.learning_rate=.inf", "model.learning_rate is inf; it must be above 0."),
        (
            "model.learning_rate=null",
            "model.learning_rate: expected float, got null; default: 5e-06",
        ),
        ("model.learning_rate=fast", "model.learning_rate: expected float, got 'fast'"),
        ("model.rank=1.5", "model.rank: expected int, got '1.5'"),
        ("model.sampling.num_inference_steps=1001", "is 1001; it must be from 1 to 1000."),
        (
            "model.adapter.dropout=1",
            "model.adapter.dropout is 1; it must be at least 0 and below 1.",
        ),
        (
            "data.evaluation.images_per_prompt=0",
            "data.evaluation.images_per_prompt is 0; it must be at least 1.",
        ),
        ("data.decoupling.contrast=.nan", "data.decoupling.contrast is nan; it must be at least 0"),
        ("data.erasing.caption_drop=2", "data.erasing.caption_drop is 2; it must be from 0 to 1."),
        ("data.attack.epsilon=0.05", "data.attack.epsilon is 0.05; it must be from 1 to 255"),
        ("data.attack.training.rank=0", "data.attack.training.rank is 0; it must be from 1"),
        ("data.purifiers+=Jpeg --data.purifiers.quality=96", "data.purifiers.0.quality is 96; it"),
        ("data.detector=TextDetector --data.detector.threshold=7", "data.detector.threshold is 7"),
        ("trainer.callbacks+=EMA --trainer.callbacks.decay=1", "decay is 1; it must be above 0"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val is -1; it must be at least 0."),
        ("trainer.accumulate_grad_batches=0", "accumulate_grad_batches is 0; it must be at least"),
        ("trainer.min_steps=-1", "trainer.min_steps is -1; it must be at least 0."),
        ("trainer.val_check_interval=0", "trainer.val_check_interval is 0; it must be above 0."),
        ("trainer.devices=abc", "trainer: `devices` selected with"),
        ("trainer.devices=" + "9" * 30, "trainer: cannot fit 'int'"),
        ("trainer.callbacks+=EMA --trainer.callbacks+=EMA", "more than one stateful callback"),
        ("trainer.max_steps=" + "9" * 30, "trainer.max_steps is 1e+30; whole numbers end at 2^63"),
        ("data.train_batch_size=" + "9" * 30, "data.train_batch_size is 1e+30; it must be from 1"),
        ("data.num_class_images=" + "9" * 30, "data.num_class_images is 1e+30; whole numbers end"),
    ],
)
def test_of_a_training(option: str, message: str, mistake: Mistake) -> None:
    attack = ["--data.attack=ASPL"] if "data.attack" in option else []
    config = str(CONFIGS / "quickstart.yaml")
    said = mistake("fit", "--config", config, *attack, *f"--{option}".split())
    assert message in said


@pytest.mark.parametrize("value", ["-1", ".nan", ".inf", "-.inf"])
def test_in_a_file(value: str, mistake: Mistake, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        f"data: {{class_path: PersonalizationDataModule, init_args: {{attack: {{class_path: ASPL,"
        f" init_args: {{training: {{learning_rate: {value}}}}}}}}}}}"
    )
    said = mistake("fit", "--config", str(path))
    assert said.startswith("error: data.attack.training.learning_rate is ")
    assert said.endswith("; it must be above 0.")


def test_a_budget_in_other_units(mistake: Mistake) -> None:
    config, out = str(CONFIGS / "quickstart.yaml"), "--output=copies"
    noise = f"--data.attack={CONFIGS / 'attacks' / 'random_noise.yaml'}"
    said = mistake("protect", "--config", config, noise, "--data.attack.epsilon=0.5", out)
    assert "(in /255 of [0, 1]). 0.5 of pictures in [0, 1] is 127.5 here, of pictures in" in said
    assert not Path("copies").exists()


@pytest.mark.parametrize("quality", ["0", "96"])
def test_an_option_of_a_verb(quality: str, mistake: Mistake) -> None:
    config = str(CONFIGS / "quickstart.yaml")
    said = mistake("protect", "--config", config, "--output=copies", f"--quality={quality}")
    assert said == f"error: quality is {quality}; it must be from 1 to 95."


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--audit.statistics.permutations=-3",
            "audit.statistics.permutations is -3; it must be at least 1.",
        ),
        (
            "--audit.statistics.fprs=[0.01,2]",
            "audit.statistics.fprs.1 is 2; it must be at least 0 and below 1.",
        ),
        (
            "--audit.statistics.ladder_error=.nan",
            "audit.statistics.ladder_error is nan; it must be above 0",
        ),
        (
            "--audit.scores={one: {class_path: SecMI, init_args: {keep: 0}}}",
            "audit.scores.one.keep is 0; it must be above 0 and at most 1.",
        ),
    ],
)
def test_of_an_audit(option: str, message: str, mistake: Mistake, tmp_path: Path) -> None:
    needed = ["--audit.target.pretrained_model_name_or_path=pocket", "--audit.members=none"]
    assert message in mistake("audit", *needed, "--audit.nonmembers=none", option)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--workers=0", "workers is 0; it must be at least 1."),
        ("--seeds=[0,-1]", "seeds.1 is -1; it must be from 0 to 4294967295."),
        ("--arms={none/none: -2}", "arms.none/none is -2; it must be at least 0."),
    ],
)
def test_of_a_matrix(option: str, message: str, mistake: Mistake) -> None:
    assert message in mistake("bench", f"--config={CONFIGS / 'bench' / 'smoke.yaml'}", option)


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["protect", "--help"], "--quality int, from 1 to 95 = 95"),
        (["fit", "--model.help=GeometryErasure"], "int, from 1 to 1000 = 25"),
        (["fit", "--model.help=GeometryErasure"], "from 1 to 32 (a side; 8 fill CLIP's 75 words)"),
        (["audit", "--help"], "--audit.statistics.fprs list of float, at least 0 and below 1"),
    ],
)
def test_help_shows_ranges(args: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    assert shown in " ".join(capsys.readouterr().out.split())
