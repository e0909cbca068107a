"""Whatever is done to captions, the words of decoupling and erasing are said of every picture.

python -m pytest tests/contracts/test_words_survive.py
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.captions import Captions
from shortcut_lightning.concepts.erasing import Captioner, Erasing
from shortcut_lightning.data import training
from shortcut_lightning.prompts import Decoupling, Prompts

ROOM = 24  # words of this text encoder
CAPTIONS = {
    "as it is": Captions(),
    "template": Captions(template="{instance}, {caption}, in front of a {class}"),
    "shuffled": Captions(shuffle=True),
    "all shuffled": Captions(shuffle=True, keep_first=0),
    "dropped": Captions(dropout=1.0),
    "some dropped": Captions(dropout=0.5, shuffle=True, template="{caption}, grainy"),
}
OWN = {
    "short": "sks dog, on the beach, at night",
    "long": "sks dog, " + ", ".join(f"with thing {number} in it" for number in range(20)),
    "none": "",
}
METHODS: dict[str, tuple[Decoupling, Erasing]] = {
    "decoupling": (Decoupling(training=True), Erasing()),
    "erasing": (Decoupling(), Erasing(caption="geometry", grid_size=2)),
    "both": (Decoupling(training=True), Erasing(caption="geometry", grid_size=2)),
}


def count(text: str) -> int:
    """Each bin's word is one, but for the first that the model does not know."""
    return 2 if text == "<l4>" else len(text.replace("<l", " <l").split())


def served(captions: Captions, own: str, method: str, seed: int = 0) -> list[str]:
    """The prompts of 40 examples of a picture, as the data module makes them."""
    decoupling, erasing = METHODS[method]
    prompts = Prompts("sks dog", "dog", decoupling=decoupling)
    said = prompts.said(captions.template, prompts.caption(own))
    example = Example(torch.zeros(3, 8, 8), said, "0.png")
    concepts: training.Concepts | None = None
    if erasing != Erasing():
        captioner = Captioner(erasing, prompts, count, ROOM)
        box = ConceptBox("mark", 1.0, (0.0, 0.0, 1.0, 0.4))
        concepts = training.Concepts([[box]], captioner, 4)

    def finished(each: Example) -> Example:
        fitted = prompts.fitted(each.prompt, "", lambda text: count(text) <= ROOM)
        return each._replace(prompt=fitted)

    data = training.TrainSet(
        [example],
        [],
        side=8,
        random_flip=False,
        seed=seed,
        concepts=concepts,
        words=training.Words(captions, finished) if captions.random else None,
    )
    if not captions.random and concepts is None:
        data.instances = [finished(example)]
    return [data[position][0].prompt for position in range(40)]


@pytest.mark.parametrize(
    ("captions", "own", "method"), list(itertools.product(CAPTIONS, OWN, METHODS))
)
def test_the_methods_words_survive(captions: str, own: str, method: str) -> None:
    prompts = served(CAPTIONS[captions], OWN[own], method)
    for prompt in prompts:
        assert count(prompt) <= ROOM, prompt
        if method != "erasing":
            assert prompt.endswith("bhj noisy pattern"), prompt
        if method != "decoupling":
            assert "mark<l0><l1>" in prompt, prompt


@pytest.mark.parametrize(
    "erasing", [Erasing(), Erasing(caption="name"), Erasing(caption="geometry", grid_size=2)]
)
def test_noise_words_survive_where_no_concept_is_said(erasing: Erasing) -> None:
    prompts = Prompts("sks dog", "dog", decoupling=Decoupling(training=True))
    prompt = Captioner(erasing, prompts, count, ROOM).instance(OWN["long"], [])
    assert prompt.endswith("bhj noisy pattern")
    assert count(prompt) <= ROOM


@pytest.mark.parametrize("method", METHODS)
def test_draws_are_the_examples_alone(method: str) -> None:
    """The same on every pass over the same positions, other with another seed."""
    captions = CAPTIONS["some dropped"]
    once = served(captions, OWN["short"], method)
    assert served(captions, OWN["short"], method) == once
    assert served(captions, OWN["short"], method, seed=1) != once


def test_what_is_kept_first_stays_first_and_nothing_is_lost() -> None:
    caption = "sks dog, a, b, c, d"
    for draw in range(50):
        drawn = Captions(shuffle=True, keep_first=2).drawn(caption, 0, draw)
        assert drawn.startswith("sks dog, a, ")
        assert sorted(drawn.split(", ")) == sorted(caption.split(", "))
    orders = {Captions(shuffle=True).drawn(caption, 0, draw) for draw in range(200)}
    assert len(orders) == 24  # of b, c, d and a


def test_the_share_that_is_dropped() -> None:
    captions = Captions(dropout=0.3)
    empty = sum(captions.drawn("a dog", 0, draw) == "" for draw in range(2000))
    assert abs(empty / 2000 - 0.3) < 0.04


def test_without_settings_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Callable[..., Any]:
        raise AssertionError("a draw that no setting asks for")

    monkeypatch.setattr("shortcut_lightning.captions.draws.generator", refuse)
    assert not Captions().random
    assert Captions().drawn("a, b", 0, 0) == "a, b"
    assert Prompts("x").said(Captions().template, "{instance} as it is") == "{instance} as it is"
