"""A user's mistake costs a line or two: `pytest tests/cli/test_mistakes.py`."""

import sys
from collections.abc import Callable
from pathlib import Path

import cli_fakes
import pytest

from shortcut_lightning.cli import main
from shortcut_lightning.cli.explain import explain

Mistake = Callable[..., str]


@pytest.fixture
def config(tmp_path: Path) -> str:
    return cli_fakes.write_config(tmp_path)


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        # misspelt keys
        (["--trainer.max_stps=3"], ["no option 'trainer.max_stps'", "'trainer.max_steps'"]),
        (["--trainr.max_steps=3"], ["no option 'trainr.max_steps'", "'trainer.max_steps'"]),
        (["--max_steps=3"], ["no option 'max_steps'", "'trainer.max_steps'"]),
        (["--zzz=3"], ["no option 'zzz'", "options: ", "ckpt_path", "output_dir"]),
        (["--model.ranks=3"], ["model.ranks: Line takes no 'ranks'", "did you mean 'rank'?"]),
        (["--model.init_args.ranks=3"], ["model.ranks", "Line takes: learning_rate, rank"]),
        (["--data.stage.radus=3"], ["data.stage.radus: Blur takes no", "'radius'"]),
        (["--data.pen.widht=3"], ["data.pen.widht: Pen takes no 'widht'", "'width'", "colour"]),
        (["--data.pn.width=3"], ["data.pn: Points takes no 'pn'", "did you mean 'pen'?"]),
        (["--data.pen.width=x"], ["data.pen.width: expected int, got 'x'"]),
        (["--data.pen=thin.yaml"], ["data.pen: no file 'thin.yaml'", "width, colour"]),
        (["--data.side.width=3"], ["data.side: expected int, got '3'"]),
        # abbreviations are not accepted
        (["--trainer.max_step=3"], ["no option 'trainer.max_step'", "'trainer.max_steps'"]),
        (["--model.learning=3"], ["model.learning: Line takes no 'learning'", "'learning_rate'"]),
        (["--output=x"], ["no option 'output'", "'output_dir'"]),
        # classes
        (["--model=Lin"], ["model: no class 'Lin'", "did you mean 'Line'?"]),
        (["--model=cli_fakes.Lne"], ["model: no class 'cli_fakes.Lne'", "'Line'"]),
        (["--model=nowhere.Line"], ["model: no class 'nowhere.Line'", "'Line'"]),
        (["--data.stage=Blurr"], ["data.stage: no class 'Blurr'", "'Blur'", "Blur, Crop"]),
        (["--trainer.logger=CSVLoger"], ["trainer.logger: no class", "'CSVLogger'"]),
        (
            ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_lst=true"],
            ["trainer.callbacks.save_lst: ModelCheckpoint takes no", "'save_last'"],
        ),
        (["--model.help=Lne"], ["model: no class 'Lne'", "'Line'"]),
        (["--data.stage.help=Blurr"], ["data.stage: no class 'Blurr'", "'Blur'"]),
        (["--data.stage=part.yaml"], ["data.stage: no file 'part.yaml'"]),
        # lists of classes
        (["--data.stages=Blur"], ["data.stages: expected list, got 'Blur'", "--data.stages+ adds"]),
        (["--data.stages=[Blurr]"], ["data.stages: no class 'Blurr'", "'Blur'"]),
        (
            ["--data.stages=[[Blur]]"],
            ["data.stages: a list inside the list", "--data.stages+ adds"],
        ),
        (["--data.stages=many.yaml"], ["data.stages: no file 'many.yaml'"]),
        (["--data.stages+=Stamp"], ["data.stages: Stamp needs 'motif'; --data.stages.motif sets"]),
        (["--data.stages=[3]"], ["data.stages: no class '3'", "Blur, Crop, Stamp"]),
        # values
        (["--trainer.max_steps=many"], ["trainer.max_steps: expected int, got 'many'"]),
        (["--trainer.max_steps=1e3"], ["trainer.max_steps: expected int, got '1000.0'"]),
        (["--trainer.max_steps"], ["--trainer.max_steps needs a value"]),
        (["--data.stage", "--model.rank=2"], ["--data.stage needs a value"]),
        (["--data.stage=Blur", "--data.stage"], ["--data.stage needs a value"]),
        (["--model.learning_rate=abc"], ["model.learning_rate: expected float, got 'abc'"]),
        (["--model.learning_rate=null"], ["model.learning_rate: expected float, got null"]),
        (["--data.stage.passes=null"], ["data.stage.passes: expected int, got "]),
        (["--data.stage.passes=1.5"], ["data.stage.passes: expected int, got '1.5'"]),
        (["--seed_everything=-1"], ["seed_everything is -1; give a whole number from 0"]),
        (["--seed_everything=abc"], ["seed_everything: expected bool or int, got 'abc'"]),
        (
            ["--trainer.precision=bf16-mixd"],
            ["trainer.precision: 'bf16-mixd' is not allowed", "did you mean 'bf16-mixed'?"],
        ),
        (["--trainer.precision=fp16"], ["'fp16' is not allowed", "did you mean '16-mixed'?"]),
        (["small.yaml"], ["unexpected argument 'small.yaml'", "--key value"]),
        (["--model.rank=${data.nothing}"], ["${data.nothing} names no setting"]),
        # what only shows when things are built and set up
        (["--data.stage.radius=-1"], ["data.stage.radius: -1.0 is negative; give pixels"]),
        (["--data.trouble=value"], ["data.prompt: '' is empty; write what"]),
        (["--data.trouble=hub"], ["connect to 'https://huggingface.co'", "pocket"]),
        (
            ["--data.trouble=folder", "--data.instance_data_dir=/no/such"],
            ["data.instance_data_dir: No such file or directory: '/no/such'"],
        ),
        (["--trainer.strategy=foo"], ["trainer: ", "invalid strategy", "foo"]),
        (["--model.learning_rate=-1"], ["Invalid learning rate: -1.0"]),
        (["--ckpt_path=no.ckpt"], ["--ckpt_path: no file 'no.ckpt'"]),
        (["--trainer.precision=bf16-true"], ["trainer.precision", "bf16-mixed", "frozen_dtype"]),
    ],
)
def test_after_a_good_config(
    args: list[str], parts: list[str], config: str, mistake: Mistake
) -> None:
    message = mistake("fit", "--config", config, *args)
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("modell: {class_path: cli_fakes.Line}", ["no option 'modell.class_path'", "'model."]),
        ("trainer: {max_stps: 4}", ["no option 'trainer.max_stps'", "'trainer.max_steps'"]),
        ("model: {class_path: cli_fakes.Line, init_args: {ranks: 3}}", ["model.ranks", "'rank'"]),
        (
            "model: {class_path: cli_fakes.Line, init_arg: {rank: 3}}",
            ["model: 'init_arg' cannot stand beside class_path", "'init_args'"],
        ),
        (
            "model: {class_path: cli_fakes.Line, rank: 3}",
            ["model: 'rank' cannot stand beside class_path", "model.init_args.rank"],
        ),
        ("model: {class_path: Line, init_args: {rank: x}}", ["model.rank: expected int, got 'x'"]),
        (
            "data: {class_path: cli_fakes.Points, init_args: {pen: {widht: 3}}}",
            ["data.pen.widht: Pen takes no 'widht'; did you mean 'width'?", "colour"],
        ),
        ("name: x", ["model: `fit` needs one", "--model CLASS"]),
        ("model: Line\ndata: {init_args: {side: 3}}", ["data.side: no class is given"]),
    ],
)
def test_in_a_config(content: str, parts: list[str], mistake: Mistake, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    message = mistake("fit", "--config", str(path))
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("trouble", ["bug", "index"])
def test_a_bug_keeps_its_traceback(trouble: str, config: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        main(["fit", "--config", config, f"--data.trouble={trouble}"])


def test_the_traceback_can_be_seen(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTCUT_LIGHTNING_DEBUG", "1")
    with pytest.raises(Exception, match="is empty") as error:
        main(["fit", "--config", config, "--data.trouble=value"])
    assert isinstance(error.value.__cause__, ValueError)


def test_a_mistake_leaves_no_empty_folder(config: str, mistake: Mistake, tmp_path: Path) -> None:
    mistake("fit", "--config", config, "--data.trouble=value")
    assert list((tmp_path / "runs").rglob("*")) == []


def test_messages_of_an_unknown_form_are_passed_on() -> None:
    assert explain("something\n  entirely new", []) == "something entirely new"


@pytest.mark.parametrize(
    ("verb", "needed"),
    [
        ("bench", "needed: --base, --factors, --subjects"),
        ("audit", "or scores in files (audit.member_scores)."),
    ],
)
def test_what_a_verb_needs(verb: str, needed: str, mistake: Mistake) -> None:
    assert mistake(verb).endswith(needed)


def test_where_copies_go_is_needed(config: str, mistake: Mistake) -> None:
    assert mistake("protect", "--config", config).endswith("needed: --output")


def test_a_file_of_nearly_that_name(config: str, mistake: Mistake, tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "blur.yaml").write_text("class_path: cli_fakes.Blur")
    message = mistake("fit", "--config", config, "--data.stage=stages/blurr.yaml")
    assert "no file 'stages/blurr.yaml'; did you mean 'stages/blur.yaml'?" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("import no_such_thing\n", ["line 1", "ModuleNotFoundError: No module named 'no_such"]),
        ("x = 1\nraise RuntimeError('no licence')\n", ["line 2", "RuntimeError: no licence"]),
        ("def f(:\n", ["line 1", "SyntaxError: "]),
    ],
)
def test_a_users_file_that_fails_says_how(
    text: str, parts: list[str], config: str, tmp_path: Path, mistake: Mistake
) -> None:
    name = f"own_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    said = mistake("fit", "--config", config, f"--data.stage={name}.Mine")
    assert said.startswith("error: data")
    assert f": {name} cannot be imported (" in said
    for part in [f"{name}.py", *parts]:
        assert part in said


def test_files_beside_the_working_folder_are_imported(config: str, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import cli_fakes\nclass Mine(cli_fakes.Blur): ...\n")
    main(["fit", "--config", config, "--data.stage=beside.Mine", "--trainer.max_steps=1"])
    assert list(tmp_path.glob("runs/*/*/metrics.csv"))
    assert str(tmp_path) not in sys.path
