"""What a checkpoint may be resumed with: python -m pytest tests/cli/test_same_run.py"""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from PIL import Image

from shortcut_lightning.attacks import RandomNoise
from shortcut_lightning.cli.errors import UserError
from shortcut_lightning.cli.same_run import Facts, facts, refuse_other
from shortcut_lightning.data import PersonalizationDataModule, SeveralSubjects
from shortcut_lightning.data.settings import Copy, NoisyClassImages, Passes
from shortcut_lightning.prompts import Decoupling
from shortcut_lightning.purifiers import Gaussian


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), shade).save(path)


def data(folder: Path, **changes: Any) -> PersonalizationDataModule:
    """Of a folder with a picture and one below it, beside a folder with one of the class."""
    if not (folder / "0.png").exists():
        picture(folder / "0.png", 0)
        picture(folder / "below" / "1.png", 1)
        picture(folder.parent / "class" / "2.png", 2)
    said = {
        "instance_data_dir": str(folder),
        "instance_prompt": "a photo of sks person",
        "class_prompt": "a photo of a person",
        "with_prior_preservation": True,
        "class_data_dir": str(folder.parent / "class"),
    }
    return PersonalizationDataModule(**(said | changes))  # type: ignore[arg-type]


def of(folder: Path, **changes: Any) -> Facts:
    return facts(BoringModel(), data(folder, **changes))


def said(folder: Path, then: Facts, now: Facts) -> str:
    """What is said of a resumption; nothing where it goes on."""
    file = folder / "last.ckpt"
    torch.save({"callbacks": {"ConfigWins": {"facts": then}}}, file)
    try:
        refuse_other(str(file), "last", now)
    except UserError as error:
        return str(error).partition("another ")[2].partition(". Give")[0]
    return ""


COPIES, NOISY = {"training": Passes(copies=[Copy()])}, {"decoupling": Decoupling(training=True)}


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ({}, {}, ""),
        ({}, {"class_data_dir": ""}, "data.class_data_dir"),
        ({}, {"num_class_images": 7}, "data.num_class_images"),
        (
            NOISY,
            NOISY | {"noisy_class_images": NoisyClassImages([RandomNoise()])},
            "data.noisy_class_images",
        ),
        (COPIES, {"training": Passes(copies=[Copy([Gaussian()])])}, "data.training.copies"),
        (COPIES, {"training": Passes(copies=[Copy()], agreement=4)}, "data.training.agreement"),
        ({}, {"recursive": True}, "data.instance_data_dir (subfolders)"),
    ],
)
def test_other_pictures_are_refused(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], key: str
) -> None:
    then, now = of(tmp_path / "in", **before), of(tmp_path / "in", **after)
    assert said(tmp_path, then, now) == said(tmp_path, now, then) == key


def test_class_images_are_learned_or_not(tmp_path: Path) -> None:
    then, now = of(tmp_path / "in"), of(tmp_path / "in", with_prior_preservation=False)
    assert "data.class_prompt" in said(tmp_path, then, now)
    assert said(tmp_path, now, then) == "data.with_prior_preservation"


def test_what_lies_in_folders_is_told_by_content(tmp_path: Path) -> None:
    then = of(tmp_path / "in", recursive=True)
    picture(tmp_path / "in" / "below" / "1.png", 8)
    now = of(tmp_path / "in", recursive=True)
    assert said(tmp_path, then, now) == "data.instance_data_dir (subfolders)"
    picture(tmp_path / "class" / "2.png", 8)
    assert said(tmp_path, now, of(tmp_path / "in", recursive=True)) == "data.class_data_dir"


def test_class_images_that_the_run_made_itself_are_no_others(tmp_path: Path) -> None:
    then = of(tmp_path / "in", class_data_dir=str(tmp_path / "made"))
    picture(tmp_path / "made" / "class-00000.png", 9)
    assert not said(tmp_path, then, of(tmp_path / "in", class_data_dir=str(tmp_path / "made")))


def test_older_checkpoints_are_asked_for_what_they_know(tmp_path: Path) -> None:
    now = of(tmp_path / "in", recursive=True, num_class_images=7, **COPIES)
    older = of(tmp_path / "in")
    new = ("class_data_dir", "images", "subfolders", "copies", "agreement", "preservation")
    older = {key: fact for key, fact in older.items() if not any(part in key for part in new)}
    assert "data.instance_data_dir" in older
    assert not said(tmp_path, older, now)


def test_subjects_that_come_and_go_are_named(tmp_path: Path) -> None:
    def subjects(*names: str) -> Facts:
        return facts(BoringModel(), SeveralSubjects({n: data(tmp_path / n) for n in names}))

    both, one, single = subjects("ann", "bob"), subjects("ann"), of(tmp_path / "ann")
    assert not said(tmp_path, both, both)
    assert said(tmp_path, one, both) == "data.subjects (ann, now ann, bob)"
    assert said(tmp_path, both, one) == "data.subjects (ann, bob, now ann)"
    assert said(tmp_path, both, single) == "data.subjects (ann, bob, now none)"
    assert said(tmp_path, single, both).startswith("data.")
