"""Attacks as a stage of a run: python -m pytest tests/data/test_perturbing.py"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_model import FakeBackbone
from torch import Tensor

from shortcut_lightning.attacks import Adaptive, AdvDM
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.attacks.progress import Progress, Stateful
from shortcut_lightning.batch import Example
from shortcut_lightning.data import stages
from shortcut_lightning.files.cache import Cache

CPU = torch.device("cpu")


@pytest.fixture
def examples() -> list[Example]:
    """Two pictures of one shape and one of another."""
    chance = torch.Generator().manual_seed(0)
    sides = [(16, 16), (16, 24), (16, 16)]
    pictures = [torch.randint(256, (3, *side), generator=chance) / 255 for side in sides]
    return [Example(picture, "a photo", str(n)) for n, picture in enumerate(pictures)]


def pixels(examples: list[Example], attack: Attack, cache: Cache) -> list[Tensor]:
    made = stages.perturb(examples, attack, FakeBackbone(), cache, CPU)
    return [example.image for example in made]


def test_doubts_about_an_attack_are_told_again_from_the_cache(
    examples: list[Example], tmp_path: Path
) -> None:
    for _ in range(2):
        told: list[str] = []
        attack = Adaptive(steps=3, purifiers=[])
        stages.perturb(examples, attack, FakeBackbone(), Cache(tmp_path), CPU, told.append)
        assert told == [
            "Adaptive: 3 steps are too few to see whether the loss has converged; raise "
            "data.attack.steps."
        ]


def test_an_interrupted_stage_goes_on(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
                if steps == 6:  # in the middle of the second shape
                    raise KeyboardInterrupt

    monkeypatch.setattr("shortcut_lightning.data.stages.Progress", Eager)
    with pytest.raises(KeyboardInterrupt):
        pixels(examples, attack, Cache(tmp_path / "a"))
    after = pixels(examples, attack, Cache(tmp_path / "a"))
    assert steps == 6 + 3
    whole = pixels(examples, attack, Cache(tmp_path / "b"))
    assert all(torch.equal(a, b) for a, b in zip(after, whole, strict=True))
    assert not list(tmp_path.rglob("*.progress"))
