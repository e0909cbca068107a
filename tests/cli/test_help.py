"""Help is read from the source, at once, and says what is there: python -m pytest tests/cli"""

import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from shortcut_lightning.cli import main
from shortcut_lightning.cli.app import ShortcutCLI, ShortcutTrainer, not_options
from shortcut_lightning.cli.class_index import class_index, concrete
from shortcut_lightning.cli.parser import ShortcutParser
from shortcut_lightning.cli.source import described
from shortcut_lightning.cli.verbs import VERBS

FAMILIES = ["Attack", "Purifier", "Detector", "ConceptGenerator", "Score", "LightningModule"]
FAMILIES += ["LightningDataModule", "Callback"]
CLASSES = sorted({name for base in FAMILIES for name in concrete(base, class_index())})


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """Runs a command line that asks; returns the answer."""

    def run(*args: str) -> str:
        capsys.readouterr()
        main(list(args))
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_answers_without_imports(verb: str) -> None:
    code = (
        f"import sys\nfrom shortcut_lightning.cli import main\nmain([{verb!r}, '--help'])\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert VERBS[verb] in done.stdout


def test_our_keys_come_first_each_with_a_line(said) -> None:
    lines = said("fit", "--help").splitlines()
    keys = [line.split()[0] for line in lines if line.startswith("  --")]
    assert keys.index("--data.attack") < keys.index("--trainer.max_steps")
    assert {"--name", "--model.learning_rate", "--data.instance_data_dir", "--ckpt_path"} <= {*keys}
    ours = [n for n, line in enumerate(lines) if line.startswith(("  --data.", "  --model."))]
    lineless = [lines[n] for n in ours if not lines[n + 1].startswith("      ")]
    assert lineless == ["  --data.attack.help [CLASS]", *lineless[1:]]
    assert all(".help" in line for line in lineless)


def test_verify_has_options_of_its_own_and_those_of_learning(said) -> None:
    keys = {line.split()[0] for line in said("verify", "--help").splitlines() if "--" in line[:4]}
    own = {"--effort", "--dry_run", "--workers", "--output", "--family", "--restoration"}
    assert own | {"--config", "--output_dir", "--data.attack.help", "--model.rank"} <= keys


@pytest.mark.parametrize("verb", ["fit", "test", "protect", "detect"])
def test_no_option_of_a_verb_is_left_out(verb: str, said) -> None:
    shown = said(verb, "--help") + said(verb, "--trainer.help")
    cli = ShortcutCLI.__new__(ShortcutCLI)
    cli.trainer_class, cli.trainer_defaults, cli.parser_kwargs = ShortcutTrainer, {}, {}
    parser = ShortcutParser()
    cli.add_core_arguments_to_parser(parser)
    cli.add_arguments_to_parser(parser)
    parser.add_method_arguments(ShortcutTrainer, verb, None, skip=not_options(verb))
    left = [
        option
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and not option.endswith(("help", "--print_config", "+"))
        if f"  {option} " not in shown and option not in ("--model", "--data", "--trainer")
    ]
    assert set(left) <= {"--weights_only"}  # Lightning's, which reads any checkpoint of ours


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_shown_is_what_the_parser_takes(name: str) -> None:
    found = described(name)
    assert found is not None
    module = __import__(found.module, fromlist=[name])
    parser = ArgumentParser(exit_on_error=False)
    taken = parser.add_class_arguments(getattr(module, name), "it", fail_untyped=False)
    names = {argument.removeprefix("it.").split(".")[0] for argument in taken}
    assert {argument.name for argument in found.arguments} == names
    assert found.about


@pytest.mark.parametrize(
    ("args", "parts", "absent"),
    [
        (["fit", "--data.help"], ["PersonalizationDataModule  "], "Oracle"),
        (["fit", "--model.help"], ["DreamBooth  ", "GeometryErasure  ", "esd"], "MeasureTraining"),
        (["protect", "--data.attack.help", "ASPL"], ["--data.attack.rounds int", "= 50"], "usage"),
        (["fit", "--data.attack.help=ASPL"], ["--data.attack.rounds int"], "error"),
        (["fit", "--data.attack.help"], ["ASPL ", "pocket/aspl"], "GradientAttack"),
        (["fit", "--data.purifiers+.help"], ["Jpeg ", "code_sr_pocket"], "Purifier "),
        (["fit", "--data.decoupling.help"], ["--data.decoupling.training bool = false"], "Class"),
        (["fit", "--data.attack.help", "aspl"], ["class_path: ", "steps: "], "error"),
        (["protect", "--data.attack.training.help"], ["--data.attack.training.rank"], "error"),
        (["fit", "--data.instance_prompt.help"], ["--data.instance_prompt str"], "error"),
        (["fit", "--trainer.help"], ["--trainer.max_steps", "--trainer.precision"], "usage"),
        (["fit", "--trainer.callbacks.help"], ["EMA ", "EarlyStopping "], "EvaluationCallback"),
        (["fit", "--trainer.logger.help"], ["WandbLogger "], "error"),
        (["fit", "--trainer.callbacks.help", "ModelCheckpoint"], ["save_top_k"], "usage"),
        (["fit", "--trainer.callbacks.help", "EMA"], ["--trainer.callbacks.decay"], "usage"),
        (["fit", "--model.help", "GeometryErasure"], ["grid_size", "--model.rank"], "train_unet"),
        (["audit", "--audit.scores.help"], ["CLiD ", "PIA "], "Measured"),
        (["audit", "--audit.target.help"], ["--audit.target.lora"], "error"),
        (["bench", "--factors.help"], ["--factors dict"], "error"),
    ],
)
def test_every_help_answers(args: list[str], parts: list[str], absent: str, said) -> None:
    text = said(*args)
    assert all(part in text for part in parts), text
    assert absent not in text


def test_a_class_of_ones_own_by_its_path(said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    Path("own_attacks.py").write_text(
        "from shortcut_lightning.attacks import RandomNoise\n\n\nclass Own(RandomNoise):\n"
        "    def __init__(self, colour: str = 'red') -> None: ...\n"
    )
    text = said("protect", "--data.attack.help", "own_attacks.Own")
    assert "--data.attack.colour str = 'red'" in text
    assert "own_attacks" not in sys.modules


def test_ranges_and_choices_are_shown(said) -> None:
    assert "float, from 1 to 255" in said("fit", "--data.attack.help", "ASPL")
    assert "lr_scheduler constant, constant_with_warmup" in said("fit", "--help")


def test_lightnings_trainer_is_read_right() -> None:
    found = described("Trainer")
    assert found is not None
    parser = ArgumentParser()
    taken = {name.split(".")[1] for name in parser.add_class_arguments(Trainer, "it")}
    assert {argument.name for argument in found.arguments} >= taken
