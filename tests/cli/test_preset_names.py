"""Presets as a user meets them, from an empty folder: python -m pytest tests/cli"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from shortcut_lightning import presets
from shortcut_lightning.cli import main

Mistake = Callable[..., str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs with `--print_config` and returns the data's settings."""

    def run(*args: str) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([*args, "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]

    return run


def classes(stages: list[dict[str, Any]]) -> list[str]:
    return [stage["class_path"].rsplit(".", 1)[-1] for stage in stages]


def test_names_in_the_place_of_every_kind_of_file(printed: Callable[..., Any]) -> None:
    data = printed(
        "fit",
        *("--config", "quickstart", "--data.attack", "pocket/adaptive_tvm"),
        *("--data.purifiers=[jpeg, code_sr_pocket]", "--data.detector", "qr"),
        *("--data.decoupling", "paper", "--data.erasing=geometry"),
    )
    assert data["attack"]["class_path"].endswith("Adaptive")
    assert classes(data["attack"]["init_args"]["purifiers"]) == ["TotalVariation"]
    assert classes(data["purifiers"]) == ["Jpeg", "PocketRestoration", "Resize", "SDEdit"]
    assert data["detector"]["class_path"].endswith("QRCodeDetector")
    assert data["decoupling"]["training"] is True
    assert data["erasing"]["caption"] != "none"


def test_names_in_a_file_of_ones_own(printed: Callable[..., Any]) -> None:
    Path("mine.yaml").write_text(
        "data:\n  class_path: PersonalizationDataModule\n  init_args:\n"
        "    attack: mine\n    detector: text\n    purifiers: [tvm, {class_path: Gaussian}]\n"
    )
    Path("mine").write_text("{class_path: RandomNoise, init_args: {epsilon: 3}}")
    data = printed("fit", "--config", "configs/quickstart.yaml", "--config", "mine.yaml")
    assert data["attack"]["init_args"]["epsilon"] == 3
    assert data["detector"]["class_path"].endswith("TextDetector")
    assert classes(data["purifiers"]) == ["TotalVariation", "Gaussian"]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["fit", "--config=quickstrt"], ["no file or preset", "did you mean 'quickstart'?"]),
        (["bench", "--config=smal"], ["no file or preset", "did you mean 'small'?"]),
        (["audit", "--config=lora_without"], ["did you mean 'lora_without_shadow'?"]),
    ],
)
def test_misspelt_recipes(args: list[str], parts: list[str], mistake: Mistake) -> None:
    message = mistake(*args)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("option", "given", "meant"),
    [
        ("attack", "pocket/asppl", "pocket/aspl"),
        ("purifiers", "jpg", "jpeg"),
        ("purifiers", "[gausian]", "gaussian"),
        ("decoupling", "papr", "paper"),
        ("detector", "textt", "text"),
    ],
)
def test_misspelt_fragments(option: str, given: str, meant: str, mistake: Mistake) -> None:
    message = mistake("fit", "--config", "quickstart", f"--data.{option}={given}")
    assert f"data.{option}: no " in message
    assert f"did you mean '{meant}'?" in message


def test_a_matrix_of_ones_own_names_presets(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(
        "base: [cell]\nsubjects: ['pocket:0']\n"
        "factors: {attack: {aspl: {data.attack: pocket/aspl}, none: {}}}\n"
    )
    main(["bench", "--config", "mine.yaml", "--tables=only"])
    assert "0 of 2 cells" in capsys.readouterr().out
    cell = presets.in_values(yaml.safe_load(Path("mine.yaml").read_text()))
    assert cell["base"] == [str(presets.FOLDER / "bench" / "cell.yaml")]


def test_the_list_needs_no_imports() -> None:
    code = (
        "import sys\nfrom shortcut_lightning.cli import main\nmain(['presets', 'pocket/aspl'])\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--data.attack NAME\n  pocket/aspl  ASPL for the pocket")
