"""What is made of numbers of single pictures: python -m pytest tests/verify/test_effects.py"""

import math

import numpy as np
import pytest

from shortcut_lightning.verify.effects import Measured, findings, least_pictures
from shortcut_lightning.verify.routes import LEARNER, Route
from shortcut_lightning.verify.words import number, title, verdict

ROUTES = [Route(name, f"after {name}", {}) for name in ("as given", "jpeg", "half")]
QUALITY = "eval/quality_pocket"


def values(mean: float, spread: float = 0.02, n: int = 32, seed: int = 0) -> dict[str, float]:
    drawn = np.random.default_rng(seed).normal(mean, spread, n)
    return {f"0/{number}": float(value) for number, value in enumerate(drawn)}


def arms(route: str, clean: float, noise: float, protected: float) -> dict[str, dict[str, float]]:
    means = {"clean": clean, "noise": noise, "protected": protected}
    return {f"{n}/{route}": values(m, seed=s) for s, (n, m) in enumerate(means.items())}


@pytest.fixture
def found() -> Measured:
    """Much is left as given, a little after JPEG, nothing after both."""
    identity = {
        **arms("as given", 0.9, 0.9, 0.5),
        **arms("jpeg", 0.9, 0.9, 0.86),
        **arms("half", 0.9, 0.9, 0.9),
        "untouched/as given": values(0.1),
    }
    quality = {
        **arms("as given", 0.95, 0.95, 0.2),
        **arms("jpeg", 0.95, 0.95, 0.95),
        **arms("half", 0.95, 0.95, 0.95),
    }
    return Measured({"eval/identity": identity, QUALITY: quality, "eval/texture": {}})


def test_the_worst_comes_first_and_is_graded(found: Measured) -> None:
    made = findings(found, ROUTES)
    assert [(each.route.name, each.grade) for each in made] == [
        ("half", "none"),
        ("jpeg", "slight"),
        ("as given", "clear"),
    ]
    assert [effect.measure for effect in made[0].effects] == ["eval/identity", QUALITY]
    identity = made[2].effects[0]
    assert identity.below_clean.mean == pytest.approx(0.4, abs=0.02)
    assert identity.below_clean.low < identity.below_clean.mean < identity.below_clean.high
    assert identity.share == pytest.approx(0.5, abs=0.03)  # .4 of the .8 above the untouched model
    assert made[2].effects[1].share == pytest.approx(0.79, abs=0.03)


def test_what_noise_does_as_well_is_no_effect(found: Measured) -> None:
    noisy = arms("as given", 0.9, 0.5, 0.5)
    found.values["eval/identity"] |= noisy
    found.values[QUALITY] |= arms("as given", 0.95, 0.2, 0.2)
    (made,) = findings(found, ROUTES[:1])
    assert made.grade == "none"
    assert made.effects[0].below_clean.low > 0
    (sentence,) = verdict([made], ["a network"])
    assert "no effect shown beyond that of noise of the same size, or of chance." in sentence


def test_pictures_are_paired(found: Measured) -> None:
    """A difference far below the spread of pictures shows where each is a little lower."""
    clean = values(0.7, 0.2)
    lower = {name: value - 0.03 for name, value in clean.items()}
    arm = {"clean/jpeg": clean, "noise/jpeg": dict(clean), "protected/jpeg": lower}
    (made,) = findings(Measured({"eval/identity": arm}), [ROUTES[1]])
    assert made.effects[0].below_clean.low == pytest.approx(0.03)
    assert made.grade == "slight"
    del lower["0/0"]
    lower["0/99"] = 5.0  # a picture that the others have not
    (made,) = findings(Measured({"eval/identity": arm}), [ROUTES[1]])
    assert made.effects[0].below_clean.n == 31


@pytest.mark.parametrize(("n", "grade"), [(10, "none"), (11, "clear")])
def test_too_few_pictures_are_not_taken_for_no_effect(n: int, grade: str) -> None:
    """Of 28 comparisons: Wilcoxon's smallest p is 2 / 2^n."""
    routes = [Route(str(number), "", {}) for number in range(7)]
    means = {"clean": 0.9, "noise": 0.9, "protected": 0.1}
    by_arm = {
        f"{name}/{route.name}": {f"0/{i}": mean + 0.001 * i * mean for i in range(n)}
        for route in routes
        for name, mean in means.items()
    }
    made = findings(Measured({"eval/identity": by_arm, QUALITY: by_arm}), routes)
    assert {each.grade for each in made} == {grade}
    assert least_pictures(28) == 11
    told = f"{title(made)}. {verdict(made, ['a network'])[0]}"
    assert ("too few pictures to show any effect" in told) == (grade == "none")
    assert "could be shown" not in told
    assert "chance" not in told


def test_a_route_without_all_three_is_left_out(found: Measured) -> None:
    del found.values["eval/identity"]["noise/half"], found.values[QUALITY]["noise/half"]
    assert [each.route.name for each in findings(found, ROUTES)] == ["jpeg", "as given"]


def test_many_comparisons_are_corrected(found: Measured) -> None:
    """What chance makes of one comparison in twenty is not shown where twenty are made."""
    chance = np.random.default_rng(5)
    routes = [Route(f"r{n}", "", {}) for n in range(20)]
    identity = {}
    for route in routes:
        for name in ("clean", "noise", "protected"):
            identity[f"{name}/{route.name}"] = {
                f"0/{n}": float(v) for n, v in enumerate(chance.normal(0.5, 0.1, 16))
            }
    made = findings(Measured({"eval/identity": identity}), routes)
    assert {each.grade for each in made} == {"none"}


def test_the_verdict_has_numbers_intervals_and_judges(found: Measured) -> None:
    made = findings(found, ROUTES)
    worst, plain = verdict(made, ["net one", "net two"])
    low = made[0].effects[0].below_clean
    assert worst.startswith(
        f"Worst case: after half your protection lowers identity by {number(low.mean)} "
        f"({number(low.low)} to {number(low.high)}) and quality by "
    )
    assert worst.endswith("Judged by net one and net two.")
    assert plain.startswith("As they are given: your protection lowers identity by 0.4")
    assert plain.endswith("an effect is shown.")
    assert title(made) == "In the worst case the protection has no effect that could be shown"
    assert title([]) == "Nothing was compared yet"


def test_numbers_as_people_read_them() -> None:
    assert [number(x) for x in (0.124, -0.031, -0.001, math.nan)] == ["0.12", "−0.03", "0.00", "–"]


def test_scores_that_are_low_for_good_pictures_are_no_quality() -> None:
    arm = arms("as given", 3.0, 3.0, 9.0)  # NIQE rises with damage
    both = {"eval/identity": arm, "eval/iqa_niqe": arm}
    assert Measured(both).measures() == ["eval/identity"]
    assert Measured({**both, "eval/iqa_musiq": arm}).measures() == [
        "eval/identity",
        "eval/iqa_musiq",
    ]


def test_a_share_is_of_the_whole_scale() -> None:
    arm = arms("as given", 0.0, 0.0, -0.5)  # of -1 to 1
    (made,) = findings(Measured({"eval/q_paper": arm}), ROUTES[:1])
    assert made.effects[0].share == pytest.approx(0.5, abs=0.03)


def test_a_share_of_what_another_model_learns_is_of_its_own(found: Measured) -> None:
    other = Route("other", "when it learns", {LEARNER: "another"})
    found.values["eval/identity"] |= arms("other", 0.5, 0.5, 0.3)  # the recipe's learns 0.9
    identity = findings(found, [ROUTES[0], other])[0].effects[0]
    assert identity.share == pytest.approx(0.5, abs=0.04)  # .2 of the .4 above the untouched one
