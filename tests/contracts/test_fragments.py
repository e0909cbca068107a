"""Every short YAML for a stage builds that stage: python -m pytest tests/contracts"""

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from shortcut_lightning.attacks import Attack
from shortcut_lightning.concepts import Detector, Erasing
from shortcut_lightning.concepts.generators import ConceptGenerator
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.prompts import Decoupling
from shortcut_lightning.purifiers import Purifier

CONFIGS = Path(__file__).parents[2] / "configs"


def fragments(folder: str) -> list[Path]:
    return sorted((CONFIGS / folder).glob("*.yaml"))


def build(option: str, file: Path, *more: str) -> Any:
    """What the data module gets from `--data.<option> <file>`."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(PersonalizationDataModule, "data", sub_configs=True)
    parsed = parser.parse_args([f"--data.{option}={file}", *more])
    return attrgetter(option)(parser.instantiate(parsed).data)


def test_there_are_fragments() -> None:
    assert all(fragments(folder) for folder in ("attacks", "purifiers", "detectors"))


@pytest.mark.parametrize(
    "file", fragments("attacks") + fragments("attacks/pocket"), ids=lambda file: file.stem
)
def test_attacks(file: Path) -> None:
    assert isinstance(build("attack", file), Attack)


LISTS = [("noisy_class_images.attacks", Attack, file) for file in fragments("class_attacks")]
LISTS += [("purifiers", Purifier, file) for file in fragments("purifiers")]


@pytest.mark.parametrize(("option", "kind", "file"), LISTS, ids=[one[2].stem for one in LISTS])
def test_lists_of_attacks_and_chains_of_purifiers(option: str, kind: type, file: Path) -> None:
    with_classes = (
        "with_prior_preservation=true",
        "class_prompt=a dog",
        "decoupling.training=true",
    )
    chain = build(option, file, *(f"--data.{setting}" for setting in with_classes))
    assert isinstance(chain, list)
    assert chain
    assert all(isinstance(each, kind) for each in chain)


# What such a file must be told, as its first lines say.
THEIRS = {
    "precomputed": ("path", '{"file_name": "a.png", "boxes": []}'),
    "coco": ("path", '{"images": [], "annotations": [], "categories": []}'),
    "csv": ("path", "file_name,label,x0,y0,x1,y1"),
    "function": ("function", "json:loads"),
}


@pytest.mark.parametrize("file", fragments("detectors"), ids=lambda file: file.stem)
def test_detectors(file: Path, tmp_path: Path) -> None:
    key, value = THEIRS.get(file.stem, ("", ""))
    if key == "path":
        (tmp_path / "boxes").write_text(value + "\n")
        value = str(tmp_path / "boxes")
    more = [f"--data.detector.{key}={value}"] if key else []
    assert isinstance(build("detector", file, *more), Detector)


@pytest.mark.parametrize("file", fragments("erasing"), ids=lambda file: file.stem)
def test_erasing(file: Path) -> None:
    rule = build("erasing", file)
    assert isinstance(rule, Erasing)
    assert rule != Erasing()


@pytest.mark.parametrize("name", ["qr", "watermark", "text"])
def test_concepts(name: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--concept", type=ConceptGenerator, sub_configs=True)
    parsed = parser.parse_args([f"--concept={CONFIGS / 'concepts' / name}.yaml"])
    assert isinstance(parser.instantiate(parsed).concept, ConceptGenerator)


@pytest.mark.parametrize("file", fragments("decoupling"), ids=lambda file: file.stem)
def test_decoupling(file: Path) -> None:
    rule = build("decoupling", file)
    assert isinstance(rule, Decoupling)
    assert rule != Decoupling()
