"""Configs, interpolation and class switches: `pytest tests/cli/test_parsing.py`."""

from pathlib import Path
from typing import Any

import cli_fakes
import pytest
import yaml

from shortcut_lightning.cli import main


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs with `--print_config` and returns the merged configuration and stderr."""

    def run(*args: str) -> tuple[Any, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*args, "--print_config"])
        assert exit_.value.code == 0
        out, err = capsys.readouterr()
        return yaml.safe_load(out), err

    return run


INTERPOLATED = """
data:
  class_path: cli_fakes.Points
  init_args:
    prompt: a photo of ${.instance_data_dir}
    instance_data_dir: alice
    side: ${model.init_args.rank}
"""


def test_interpolation_sees_the_command_line_and_other_files(printed: Any, tmp_path: Path) -> None:
    first = cli_fakes.write_config(tmp_path, "first.yaml")
    second = tmp_path / "second.yaml"
    second.write_text(INTERPOLATED)
    args = ["fit", "--config", first, "--config", str(second)]
    config, _ = printed(*args)
    assert config["data"]["init_args"]["prompt"] == "a photo of alice"
    assert config["data"]["init_args"]["side"] == 4
    config, _ = printed(*args, "--data.instance_data_dir=bob", "--model.rank=16")
    assert config["data"]["init_args"]["prompt"] == "a photo of bob"
    assert config["data"]["init_args"]["side"] == 16


def test_later_files_and_the_command_line_win(printed: Any, tmp_path: Path) -> None:
    first = cli_fakes.write_config(tmp_path, "first.yaml", max_epochs=3)
    second = tmp_path / "second.yaml"
    second.write_text("trainer: {max_steps: 7}\nmodel: {init_args: {rank: 8}}\n")
    args = ["fit", "--config", first, "--config", str(second), "--model.rank", "9"]
    config, _ = printed(*args)
    assert config["trainer"]["max_steps"] == 7
    assert config["trainer"]["max_epochs"] == 3
    assert config["model"]["init_args"]["rank"] == 9


def test_one_config_serves_every_verb(printed: Any, tmp_path: Path) -> None:
    path = cli_fakes.write_config(tmp_path, extra="evaluate_after_fit: false\nname: n\n")
    configs = [printed(verb, "-c", path)[0] for verb in ("fit", "validate", "test", "predict")]
    assert all(config == configs[0] for config in configs)


def test_a_stage_from_a_fragment_and_by_short_name(printed: Any, tmp_path: Path) -> None:
    path = cli_fakes.write_config(tmp_path)
    fragment = tmp_path / "crop.yaml"
    fragment.write_text("class_path: Crop\ninit_args: {side: 5}\n")
    config, _ = printed("fit", "-c", path, "--data.stage", str(fragment), "--data.stage.radius=3")
    assert config["data"]["init_args"]["stage"] == {
        "class_path": "cli_fakes.Crop",
        "init_args": {"radius": 3.0, "side": 5},
    }


def test_settings_lost_in_a_class_switch_are_told(printed: Any, tmp_path: Path) -> None:
    path = cli_fakes.write_config(tmp_path)
    args = ["fit", "-c", path, "--data.stage.passes=7", "--data.stage.radius=3"]
    config, err = printed(*args, "--data.stage=Crop")
    assert config["data"]["init_args"]["stage"]["init_args"] == {"radius": 3.0, "side": 8}
    assert err == "warning: Blur replaced by Crop, which takes no passes=7\n"


def test_defaults_lost_in_a_class_switch_are_not_worth_a_word(printed: Any, tmp_path: Path) -> None:
    assert printed("fit", "-c", cli_fakes.write_config(tmp_path), "--data.stage=Crop")[1] == ""


def test_names_of_other_programs_lead_to_options_that_exist() -> None:
    from dataclasses import fields, is_dataclass
    from inspect import signature

    from shortcut_lightning.cli.old_names import MOVED, OLD_NAMES
    from shortcut_lightning.data import PersonalizationDataModule
    from shortcut_lightning.modules import DreamBooth

    known: set[str] = set()
    for part, owner in (("model", DreamBooth), ("data", PersonalizationDataModule)):
        for name, each in signature(owner).parameters.items():
            known.add(f"--{part}.{name}")
            if is_dataclass(each.default):
                known |= {f"--{part}.{name}.{field.name}" for field in fields(each.default)}
    new = {name.split()[0] for name in OLD_NAMES.values() if name.startswith(("--model", "--data"))}
    new |= {f"--{name}" for name in MOVED.values() if not name.startswith("audit.")}
    assert {name for name in new if not name.startswith("--data.attack.")} <= known


def test_the_options_of_a_class_by_its_short_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--data.help=Points"])
    assert "--data.instance_data_dir" in capsys.readouterr().out


def test_lists_of_classes_take_files_and_grow(printed: Any, tmp_path: Path) -> None:
    first = cli_fakes.write_config(tmp_path)
    (tmp_path / "one.yaml").write_text("{class_path: cli_fakes.Blur, init_args: {radius: 3}}")
    (tmp_path / "two.yaml").write_text("[one.yaml, {class_path: cli_fakes.Crop}]")
    one, two = (str(tmp_path / name) for name in ("one.yaml", "two.yaml"))
    for args, radii in (
        ([f"--data.stages=[{one}]"], [3.0]),
        ([f"--data.stages={two}"], [3.0, 1.0]),
        ([f"--data.stages={two}", f"--data.stages+={two}"], [3.0, 1.0, 3.0, 1.0]),
        (
            [f"--data.stages={two}", "--data.stages+=Blur", "--data.stages.radius=2"],
            [3.0, 1.0, 2.0],
        ),
    ):
        config, _ = printed("fit", "--config", first, *args)
        stages = config["data"]["init_args"]["stages"]
        assert [stage["init_args"]["radius"] for stage in stages] == radii
