"""What a range holds, how it is said, and where constructors look for numbers."""

import hashlib
import json
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from lightning.pytorch import LightningModule

from shortcut_lightning.attacks import ASPL, EASPL, Adaptive, MetaCloak, NoAttack, RandomNoise
from shortcut_lightning.files.cache import describe, key_of
from shortcut_lightning.purifiers import Jpeg
from shortcut_lightning.ranges import Between, Budget, Count, Finite, Ranged, Share, ranged, refused


@pytest.mark.parametrize(
    ("allowed", "words", "inside", "outside"),
    [
        (Between(), "finite", [-1e30, 0], []),
        (Between(1), "at least 1", [1, 1e30], [0.99, -1]),
        (Between(0, open="least"), "above 0", [1e-30], [0, -1]),
        (Between(most=2), "at most 2", [-5, 2], [2.1]),
        (Between(1, 95), "from 1 to 95", [1, 95], [0, 96]),
        (Between(0, 1, open="most"), "at least 0 and below 1", [0, 0.9], [-0.1, 1]),
        (Between(0, 1, open="least"), "above 0 and at most 1", [0.1, 1], [0, 1.1]),
        (Between(8, multiple=8), "at least 8, a multiple of 8", [8, 64], [0, 12]),
        (Between(0, 1, open="both", note="of it"), "above 0 and below 1 (of it)", [0.5], [0, 1]),
    ],
)
def test_a_range(allowed: Between, words: str, inside: list[float], outside: list[float]) -> None:
    assert repr(allowed) == words
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in [*outside, math.nan, math.inf, -math.inf])


@pytest.mark.parametrize(
    ("annotation", "value", "places"),
    [
        (Share, 2, [""]),
        (Share | None, None, []),
        (Share | None, -1, [""]),
        (Sequence[Share], (0.5, 2, 3), [".1", ".2"]),
        (tuple[Count, Share], (0, 2), [".0", ".1"]),
        (tuple[Share, ...], (0, 1, 2), [".2"]),
        (Mapping[str, Count], {"a": 1, "b": 0}, [".b"]),
        (list[tuple[Share, Share]], [(0, 1), (0, 2)], [".1.1"]),
        (Annotated[float | Sequence[Share], "a note"], [2], [".0"]),
        (float, math.nan, []),
        (Share, "text", []),
        (Share, True, []),
    ],
)
def test_numbers_are_found_where_they_are(annotation: Any, value: Any, places: list[str]) -> None:
    assert [each.where for each in refused(annotation, value)] == places


def test_infinity_where_it_means_something() -> None:
    allowed = Between(0, open="least", infinite=True)
    assert repr(allowed) == "above 0 or .inf"
    assert math.inf in allowed
    assert math.nan not in allowed
    assert -math.inf not in allowed


def test_constructors_refuse() -> None:
    with pytest.raises(ValueError, match=r"^Jpeg\.quality is 96; it must be from 1 to 95\.$"):
        Jpeg(96)
    with pytest.raises(ValueError, match=r"ASPL\.step_size is nan"):
        ASPL(step_size=math.nan)

    class Own(RandomNoise):  # a user's own, which declares nothing
        def __init__(self, strength=400):  # type: ignore[no-untyped-def]
            super().__init__(strength)

    with pytest.raises(ValueError, match=r"Own\.epsilon is 400"):
        Own()
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        Jpeg(nothing=1)  # type: ignore[call-arg]


def test_a_budget_of_other_units_is_explained() -> None:
    with pytest.raises(
        ValueError, match=r"0\.05 of pictures in \[0, 1\] is 12\.75 here, of .* 6\.3"
    ):
        RandomNoise(epsilon=0.05)


def test_settings_refuse() -> None:
    @ranged
    @dataclass(frozen=True)
    class Settings:
        share: Share = 0.5
        many: Sequence[Budget] = ()

    assert Settings(0.2) == Settings(share=0.2)
    with pytest.raises(ValueError, match=r"Settings\.many\.1 is 0; it must be from 1 to 255"):
        Settings(many=[1, 0])


def test_hyper_parameters_are_still_collected() -> None:
    class Base(Ranged, LightningModule):
        def __init__(self, rate: Share = 0.5) -> None:
            super().__init__()
            self.save_hyperparameters()

    class Derived(Base):
        def __init__(self, size: Finite, rate: Share = 0.1) -> None:
            super().__init__(rate)

    assert dict(Derived(3, rate=0.2).hparams) == {"rate": 0.2, "size": 3}


def test_what_keys_the_cache_is_untouched() -> None:
    """The arguments by name and value, in the form that results of earlier versions lie under."""
    assert describe(RandomNoise(epsilon=8.0)) == [
        "shortcut_lightning.attacks.random_noise.RandomNoise",
        {"epsilon": 8.0, "sign": False},
    ]
    assert describe(NoAttack()) == ["shortcut_lightning.attacks.base.NoAttack", {}]
    assert list(describe(Adaptive(purifiers=[Jpeg()]))[1])[:3] == ["epsilon", "step_size", "steps"]
    assert describe(Adaptive(purifiers=[Jpeg()]))[1]["purifiers"] == [
        ["shortcut_lightning.purifiers.jpeg.Jpeg", {"quality": 75}]
    ]
    digests = {
        ASPL: "80dd529de95a",
        EASPL: "47291e328a3c",
        MetaCloak: "c96ff620d448",
        RandomNoise: "1bed27c9de2c",
    }
    for attack, digest in digests.items():
        text = json.dumps(describe(attack()), sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest()[:12] == digest
    again = pickle.loads(pickle.dumps(ASPL(steps=2)))
    assert key_of(attack=again) == key_of(attack=ASPL(steps=2)) != key_of(attack=ASPL())
