"""What erasing leaves on one family beside what it leaves on another."""

from types import SimpleNamespace

import pytest

from shortcut_lightning.results.erasing import Arm
from shortcut_lightning.results.families import held_more, left

RUN = 100


def arm(*shows: int) -> Arm:
    """Of each run how many of `RUN` pictures show the concept."""
    return Arm({str(run): (count, RUN) for run, count in enumerate(shows)})


def tables(**arms: tuple[int, ...]) -> SimpleNamespace:
    """As much of `ErasingTables` as is asked: one concept without a name."""
    return SimpleNamespace(concepts=[""], arms={"": {k: arm(*v) for k, v in arms.items()}})


def test_what_is_left_is_a_ratio_with_an_interval_around_it():
    value, low, high = left(arm(20, 22, 18), arm(40, 44, 36))
    assert value == pytest.approx(0.5)
    # the delta method on the log scale, which is close where counts are large
    half = 1.96 * ((1 - 0.2) / 60 + (1 - 0.4) / 120) ** 0.5
    assert low == pytest.approx(0.5 * 2.718281828**-half, rel=0.03)
    assert high == pytest.approx(0.5 * 2.718281828**half, rel=0.03)


def test_nothing_left_is_zero_with_an_upper_bound():
    value, low, high = left(arm(0, 0, 0), arm(30, 30, 30))
    assert value == low == 0
    assert 0 < high < 0.1


def test_an_arm_that_never_shows_the_concept_is_no_measure():
    with pytest.raises(ValueError, match="never shows"):
        left(arm(1, 1, 1), arm(0, 0, 0))


def test_a_family_that_keeps_less_is_told_by_its_interval_and_its_runs():
    first = tables(plain=(60, 60, 60), places=(30, 31, 29))
    second = tables(plain=(30, 30, 30), places=(1, 0, 2))
    step = [("places", "plain"), ("places", "plain")]
    assert held_more(first, second, [step]).endswith("| holds |")
    assert held_more(second, first, [step]).endswith("| does not hold |")
    assert held_more(first, first, [step]).endswith("| undecided |")


def test_two_runs_decide_nothing_and_steps_without_rows_are_left_out():
    first = tables(plain=(60, 60), places=(30, 31))
    second = tables(plain=(30, 30), places=(1, 0))
    step = [("places", "plain"), ("places", "plain")]
    text = held_more(first, second, [step, [("name", "plain"), ("name", "plain")]])
    assert text.endswith("| undecided |")
    assert len(text.splitlines()) == 3
