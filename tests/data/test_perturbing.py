"""Attacks as a stage of a run: python -m pytest tests/data/test_perturbing.py"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from fake_model import FakeBackbone
from torch import Tensor

from shortcut_lightning.attacks import (
    ASPL,
    CAAT,
    EASPL,
    FSMG,
    SDS,
    Adaptive,
    AdvDM,
    Glaze,
    MetaCloak,
    Mist,
    RandomNoise,
    SimAC,
)
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.attacks.progress import Progress, Stateful
from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.data import stages
from shortcut_lightning.files.cache import Cache
from shortcut_lightning.purifiers import PocketRestoration, Purifier

CPU = torch.device("cpu")


@pytest.fixture
def examples() -> list[Example]:
    """Two pictures of one shape and one of another."""
    chance = torch.Generator().manual_seed(0)
    sides = [(16, 16), (16, 24), (16, 16)]
    pictures = [torch.randint(256, (3, *side), generator=chance) / 255 for side in sides]
    return [Example(picture, "a photo", str(n)) for n, picture in enumerate(pictures)]


def pixels(examples: list[Example], attack: Attack, cache: Cache, size: int = 4) -> list[Tensor]:
    made = stages.perturb(examples, attack, FakeBackbone(), cache, CPU, size)
    return [example.image for example in made]


def test_warnings_about_an_attack_are_told_again_from_the_cache(
    examples: list[Example], tmp_path: Path
) -> None:
    for _ in range(2):
        told: list[str] = []
        attack = Adaptive(steps=3, purifiers=[])
        stages.perturb(examples, attack, FakeBackbone(), Cache(tmp_path), CPU, 4, told.append)
        assert told == [
            "Adaptive: 3 steps are too few to see whether the loss has converged; raise "
            "data.attack.steps."
        ]


@pytest.mark.parametrize("other", ["code_behind", "deciding_weights"])
def test_other_code_and_other_built_in_weights_make_pictures_anew(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """What restores has its weights in the package, and says nothing of them in its arguments."""

    def found(cache: Cache) -> list[str]:
        stages.perturb(examples, RandomNoise(), FakeBackbone(), cache, CPU, 4)
        stages.purify(examples, [PocketRestoration()], FakeBackbone(), cache, CPU, 4)
        stages.detect(examples, White(), cache, CPU)
        return cache.found

    assert found(Cache(tmp_path)) == []
    assert found(Cache(tmp_path)) == ["perturb", "purify", "detect"]
    monkeypatch.setattr(stages, other, lambda *given: "others")
    assert found(Cache(tmp_path)) == []


class White(Detector):
    """Finds nothing."""

    def run(self, images: Tensor, names: list[str]) -> list[list[ConceptBox]]:
        return [[] for _ in images]


class Noting(Attack):
    """Adds noise and keeps how many pictures it was given in each call."""

    def __init__(self) -> None:
        super().__init__(64)
        self.calls: list[int] = []

    def run(
        self, images: Tensor, backbone: object, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        assert len(prompts) == len(images)
        self.calls.append(len(images))
        return images + torch.rand(images.shape, generator=generator) / 4


class Together(Noting):
    """Works on the set as a whole."""

    whole_set = True


def test_large_sets_are_changed_a_few_at_a_time(examples: list[Example], tmp_path: Path) -> None:
    """Five pictures of one shape and one of another, in batches of two."""
    same = [examples[number] for number in (0, 2, 0, 2, 0)]
    attack, cache = Noting(), Cache(tmp_path)
    made = pixels([*same, examples[1]], attack, cache, 2)
    assert attack.calls == [2, 2, 1, 1]
    # The first batch draws as a set that is no larger does, the others differently.
    for ours, alone in zip(made[:2], pixels(same[:2], attack, cache, 2), strict=True):
        assert torch.equal(ours, alone)
    assert not torch.equal(made[2], made[0])
    images = [example.image for example in (*same, examples[1])]
    assert all(0 < (a - b).abs().max() <= 64 / 255 for a, b in zip(made, images, strict=True))


def test_the_batch_size_keys_only_what_it_splits(examples: list[Example], tmp_path: Path) -> None:
    attack, cache = Noting(), Cache(tmp_path)
    for size in (2, 4, 2):
        pixels(examples, attack, cache, size)
    assert attack.calls == [2, 1]
    pixels(examples, attack, cache, 1)
    assert attack.calls == [2, 1, 1, 1, 1]


def test_attacks_on_a_whole_set_take_it_whole(examples: list[Example], tmp_path: Path) -> None:
    attack = Together()
    pixels(examples, attack, Cache(tmp_path), 1)
    assert attack.calls == [2, 1]
    assert all(kind.whole_set for kind in (ASPL, CAAT, EASPL, FSMG, MetaCloak, SimAC))
    assert not any(kind.whole_set for kind in (Adaptive, AdvDM, Glaze, Mist, SDS))


def test_purifiers_take_a_few_at_a_time_too(examples: list[Example], tmp_path: Path) -> None:
    class Dusty(Purifier):
        calls: ClassVar[list[int]] = []

        def run(
            self, images: Tensor, backbone: object, prompts: object, generator: object
        ) -> Tensor:
            self.calls.append(len(images))
            return images / 2

    made = stages.purify(examples, [Dusty()], FakeBackbone(), Cache(tmp_path), CPU, 1)
    assert Dusty.calls == [1, 1, 1]
    for after, before in zip(made, examples, strict=True):
        assert torch.equal(after.image, (before.image / 2 * 255).round() / 255)


@pytest.mark.parametrize(("size", "left"), [(4, 3), (1, 7)])
def test_an_interrupted_stage_goes_on(
    examples: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    left: int,
) -> None:
    attack, steps = AdvDM(steps=4), 0

    class Eager(Progress):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder, seconds=0)

        def loop(self, total: int, generator: torch.Generator, *states: Stateful) -> Iterator[int]:
            nonlocal steps
            for step in super().loop(total, generator, *states):
                steps += 1
                yield step
                self._due = 0.0
                if steps == 6:  # in the middle of the second shape or batch
                    raise KeyboardInterrupt

    monkeypatch.setattr("shortcut_lightning.data.works.Progress", Eager)
    with pytest.raises(KeyboardInterrupt):
        pixels(examples, attack, Cache(tmp_path / "a"), size)
    after = pixels(examples, attack, Cache(tmp_path / "a"), size)
    assert steps == 6 + left
    whole = pixels(examples, attack, Cache(tmp_path / "b"), size)
    assert all(torch.equal(a, b) for a, b in zip(after, whole, strict=True))
    assert not list(tmp_path.rglob("*.progress"))
