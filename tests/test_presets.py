"""Presets by name: python -m pytest tests/test_presets.py"""

from pathlib import Path

import pytest
import yaml

from shortcut_lightning import presets

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    ("option", "verb", "name", "file"),
    [
        ("config", "fit", "quickstart", "quickstart"),
        ("config", "protect", "configs/quickstart.yaml", "quickstart"),
        ("config", "fit", "loggers/wandb", "loggers/wandb"),
        ("config", "audit", "quickstart", "audit/quickstart"),
        ("config", "bench", "small", "bench/small"),
        ("config", "bench", "bench/small", "bench/small"),
        ("base", "", "cell", "bench/cell"),
        ("data.attack", "fit", "advdm", "attacks/advdm"),
        ("data.attack", "fit", "pocket/advdm", "attacks/pocket/advdm"),
        ("settings.data.attack", "bench", "attacks/advdm", "attacks/advdm"),
        ("data.purifiers+", "fit", "jpeg", "purifiers/jpeg"),
        ("data.attack.purifiers", "fit", "tvm", "purifiers/tvm"),
        ("data.noisy_class_images.attacks", "fit", "advdm", "class_attacks/advdm"),
        ("model", "fit", "esd", "unlearning/esd"),
    ],
)
def test_a_name_leads_to_a_file(option: str, verb: str, name: str, file: str) -> None:
    assert presets.find(name, option, verb) == CONFIGS / f"{file}.yaml"


@pytest.mark.parametrize(
    ("option", "name"),
    [("data.attack", "ASPL"), ("data.attack", "jpeg"), ("name", "quickstart"), ("config", "small")],
)
def test_what_is_no_name_of_that_option(option: str, name: str) -> None:
    assert presets.find(name, option, "fit") is None


def test_every_file_is_listed_once_with_a_line() -> None:
    lines = [line for line in presets.listing().splitlines() if line.startswith("  ")]
    files = [file for file in CONFIGS.rglob("*.yaml") if file.stem != "sweep"]
    assert len(lines) == len(files)
    assert all(len(line.split("  ")) > 2 and len(line) < 140 for line in lines)
    assert [line for line in lines if "train.py" in line] == []


def test_words_choose_from_the_list() -> None:
    found = presets.listing(["data.attack", "photoguard", "pocket"])
    assert "pocket/photoguard_encoder" in found
    assert "advdm" not in found


def test_a_file_of_ones_own_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert presets.in_arguments(["fit", "--config", "quickstart"])[2] != "quickstart"
    (tmp_path / "quickstart").write_text("name: mine\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sd15.yaml").write_text("name: mine\n")
    mine = ["fit", "--config=quickstart", "-c", "configs/sd15.yaml"]
    assert presets.in_arguments(mine) == mine


def test_a_list_takes_the_entries_of_each_name() -> None:
    (words,) = presets.in_arguments(["--data.purifiers=[jpeg, code_sr_pocket, Gaussian, own.yaml]"])
    chain = yaml.safe_load(words.partition("=")[2])
    names = [entry["class_path"].rsplit(".")[-1] for entry in chain[:4]]
    assert names == ["Jpeg", "PocketRestoration", "Resize", "SDEdit"]
    assert chain[4:] == ["Gaussian", "own.yaml"]


def test_values_that_only_look_like_names_stay() -> None:
    words = ["fit", "--name", "quickstart", "--data.instance_prompt=[jpeg", "--data.attack"]
    assert presets.in_arguments(words) == words
    data = {"attack": {"aspl": {}}, "labels": ["qr"], "purifiers": [], "detector": None}
    assert presets.in_values(data) == data


def test_no_preset_that_lists_take_names_files_of_its_own() -> None:
    """Their entries are put among others', away from the file's folder."""
    for room in ("purifiers", "class_attacks"):
        for file in (CONFIGS / room).glob("*.yaml"):
            entries = yaml.safe_load(file.read_text())
            assert isinstance(entries, list)
            assert ".yaml" not in yaml.safe_dump(entries)
