"""Shares of the photographs, pictures seen more often, captions: python -m pytest tests/data"""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_datamodule import add_images, fit

from shortcut_lightning.attacks import RandomNoise
from shortcut_lightning.captions import Captions
from shortcut_lightning.data import PersonalizationDataModule, copies, shares
from shortcut_lightning.data.settings import Passes

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return add_images(tmp_path / "photos", 4)


def changed(data: PersonalizationDataModule) -> list[int]:
    pairs = zip(data.given, data.trained_on, strict=True)
    return [i for i, (a, b) in enumerate(pairs) if not torch.equal(a.image, b.image)]


def test_a_share_is_protected_and_larger_ones_hold_smaller(photos: Path, tmp_path: Path) -> None:
    found = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        data, *_ = fit(photos, tmp_path, attack=RandomNoise(), attack_share=share)
        assert changed(data) == data.protected
        found.append({*data.protected})
    assert [len(each) for each in found] == [0, 1, 2, 3, 4]
    assert all(small < large for small, large in pairwise(found))
    others = [shares.chosen(4, 0.5, seed) for seed in range(20)]
    assert len({tuple(each) for each in others}) > 1


def test_all_protected_are_the_pixels_of_a_run_without_the_setting(
    photos: Path, tmp_path: Path
) -> None:
    one, *_ = fit(photos, tmp_path / "a", attack=RandomNoise())
    two, *_ = fit(photos, tmp_path / "b", attack=RandomNoise(), attack_share=1.0)
    for a, b in zip(one.trained_on, two.trained_on, strict=True):
        assert torch.equal(a.image, b.image)


def test_protect_protects_all(photos: Path, tmp_path: Path) -> None:
    data = PersonalizationDataModule(str(photos), attack=RandomNoise(), attack_share=0.5)
    wanted = copies.Copies(str(tmp_path / "out"), "png", 95, "strip", False)
    with pytest.raises(ValueError, match="`protect` protects each photograph"):
        copies.protect_folder(data, None, torch.device("cpu"), wanted, "")  # type: ignore[arg-type]


def test_pictures_are_seen_as_often_as_said(photos: Path, tmp_path: Path) -> None:
    repeats = {"*.png": 1, "2.png": 3}
    data, _, trainer = fit(photos, tmp_path, training=Passes(picture_repeats=repeats))
    dataset: Any = trainer.train_dataloader.dataset
    assert len(dataset) == 6
    images = [each.image for each in dataset.instances]
    seen: Counter[int] = Counter()
    for position in range(6):
        image = dataset[position][0].image
        seen.update(i for i, each in enumerate(images) if torch.equal(each[..., :16, :16], image))
    assert sum(seen.values()) >= 6
    assert shares.rows([each.name for each in data.trained_on], repeats) == [0, 1, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"training": Passes(picture_repeats={"9.png": 2})},
            "no picture is '9.png'; there are 0.png, 1.png",
        ),
        ({"attack_share": 1.5}, "attack_share is 1.5; it must be from 0 to 1"),
    ],
)
def test_mistakes_are_named(
    options: dict[str, Any], message: str, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        fit(photos, tmp_path, **options)


def test_captions_of_a_run(photos: Path, tmp_path: Path) -> None:
    for number in range(4):
        (photos / f"{number}.txt").write_text(f"sks dog, tag{number}, b, c")
    captions = Captions(template="{caption}, in light", shuffle=True, dropout=0.4)
    data, module, _ = fit(photos, tmp_path, steps=20, use_captions=True, captions=captions)
    said = [prompt for batch in module.seen for prompt in batch.prompts]
    assert 0.1 < said.count("") / len(said) < 0.8
    assert all(prompt == "" or prompt.startswith("sks dog, ") for prompt in said)
    assert len(set(said)) > 5
    assert {each.prompt for each in data.given} == {f"sks dog, tag{n}, b, c" for n in range(4)}
    assert module.validated[0].prompts[0] == "sks dog, tag0, b, c, in light"


def test_a_cache_of_embeddings_and_a_random_caption(photos: Path, tmp_path: Path) -> None:
    from fake_model import FakeModule

    class Cached(FakeModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"cache_text_embeddings": True})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_datamodule.FakeModule", Cached)
        fit(photos, tmp_path)
        with pytest.raises(ValueError, match=r"embeds each prompt once, but data.captions.shuffle"):
            fit(photos, tmp_path, captions=Captions(shuffle=True))
        with pytest.raises(ValueError, match=r"captions.dropout makes another at random"):
            fit(photos, tmp_path, captions=Captions(dropout=0.1))
