"""Public calls check what they are handed: python -m pytest tests/test_doors.py"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from fake_model import FakeBackbone
from torch import Tensor

from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.attacks.random_noise import RandomNoise
from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector, NoDetector
from shortcut_lightning.files.cache import key_of
from shortcut_lightning.membership.loss import Loss
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.jpeg import Jpeg

PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
WORDS = ["a photo", "a photo of a dog"]


def stage(made: Attack | Purifier) -> Callable[..., Tensor]:
    def call(images: Any, words: Any = WORDS) -> Tensor:
        return made(images, FakeBackbone(), words, generator=torch.Generator().manual_seed(0))

    return call


def asked(images: Any, words: Any = WORDS) -> Tensor:
    return Loss()(images, words, FakeBackbone())


def looked_at(images: Any) -> list[list[ConceptBox]]:
    return NoDetector().detect(images)


WITH_WORDS = [stage(RandomNoise()), stage(Jpeg()), asked]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (PICTURES * 255, r"in \[0, 1\] and got values from .* to 25.*divide them by 255"),
        (PICTURES * 2 - 1, r"\(images \+ 1\) / 2"),
        (PICTURES * torch.nan, "values from nan"),
        ((PICTURES * 255).byte(), r"got torch.uint8; give images.float\(\) / 255"),
        (PICTURES.half(), r"got torch.float16; give images.float\(\)"),
        (PICTURES[:, :1], r"shape \(N, 3, H, W\) and got \(2, 1, 16, 16\)"),
        (PICTURES[0], r"one image is images\[None\]"),
        (np.zeros((2, 3, 16, 16)), "as a tensor.*got ndarray"),
    ],
)
@pytest.mark.parametrize("call", [*WITH_WORDS, looked_at])
def test_pictures_of_another_form_are_refused(
    call: Callable[..., Any], images: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        call(images)


@pytest.mark.parametrize("call", WITH_WORDS)
def test_words_are_counted(call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="and got a single text"):
        call(PICTURES, "ab")
    with pytest.raises(ValueError, match=r"got 1 \w+ for 2 images"):
        call(PICTURES, ["a photo"])
    with pytest.raises(ValueError, match="a list of texts"):
        call(PICTURES, [1, 2])


class Grey(Attack):
    def run(self, images: Tensor, backbone: Any, prompts: Any, generator: Any) -> Tensor:
        return images[:, :1]


class Forgetful(Attack):
    def __init__(self, epsilon: float = 8) -> None:
        self.steps = 3

    def run(self, images: Tensor, backbone: Any, prompts: Any, generator: Any) -> Tensor:
        return images


class Nothing(Purifier):
    def run(self, images: Tensor, backbone: Any, prompts: Any, generator: Any) -> Any:
        return None


class One(Detector):
    def run(self, images: Tensor, names: Sequence[str]) -> list[list[ConceptBox]]:
        return [[]]


def test_what_a_users_class_does_wrong_is_said_with_its_name() -> None:
    with pytest.raises(ValueError, match=r"Grey.run must return .* \(2, 1, 16, 16\)"):
        stage(Grey())(PICTURES)
    with pytest.raises(ValueError, match=r"Forgetful.* must call super\(\).__init__"):
        stage(Forgetful())(PICTURES)
    with pytest.raises(ValueError, match=r"Forgetful does not keep its argument 'epsilon'"):
        key_of(attack=Forgetful())
    with pytest.raises(ValueError, match=r"Nothing.run .* returned NoneType"):
        stage(Nothing())(PICTURES)
    with pytest.raises(ValueError, match=r"One.run .* 2 images, and returned 1"):
        One().detect(PICTURES)
    with pytest.raises(TypeError, match="Old defines `detect`"):
        type("Old", (Detector,), {"detect": None})
