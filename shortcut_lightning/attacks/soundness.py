"""When an evaluation of a defence is not to be believed.

The questions are those of Carlini et al. (arXiv 1902.06705) and of AutoAttack's own checks (arXiv
2003.01690).
"""

from collections.abc import Iterable, Sequence

from shortcut_lightning.attacks.adaptive import Adaptive
from shortcut_lightning.attacks.base import Attack, NoAttack
from shortcut_lightning.attacks.random_noise import RandomNoise
from shortcut_lightning.files.cache import describe
from shortcut_lightning.prompts import Decoupling, Prompts
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.oracle import Oracle


def soundness(
    attack: Attack,
    purifiers: Sequence[Purifier],
    decoupling: Decoupling = Decoupling(),  # noqa: B008
) -> list[str]:
    """Why results of this attack against this chain of purifiers and this decoupling would mislead;
    empty when nothing speaks against them. Each is one sentence.

    Decoupling hides no gradient, so that an attack which does not know it is a fair one; an
    adaptive one claims to know the whole defence.
    """
    knows_all = any(isinstance(each, Oracle) for each in purifiers)
    if isinstance(attack, NoAttack | RandomNoise) or knows_all:
        return []
    if not isinstance(attack, Adaptive):
        return _unaware(type(attack).__name__, purifiers)
    found = _half_aware(attack, purifiers) if purifiers else []
    for purified in (False, True) if purifiers else (False,):
        expected, met = (_noise_words(each, purified) for each in (attack.decoupling, decoupling))
        if expected != met:
            pictures = " with purified pictures" if purified else ""
            found.append(
                f"It was made for the noise words ({expected}){pictures} and the run trains with "
                f"({met}); set data.attack.decoupling as data.decoupling."
            )
            break  # one difference is doubt enough
    return found


def _unaware(name: str, purifiers: Sequence[Purifier]) -> list[str]:
    found = []
    if random := _names(each for each in purifiers if each.random):
        found.append(
            f"{random} is random and {name} does not average over it; use Adaptive with this chain "
            "as its purifiers before calling it robust."
        )
    if hiding := _names(each for each in purifiers if not each.differentiable):
        found.append(
            f"{hiding} passes no useful gradient and {name} knows nothing of it; use Adaptive with "
            "this chain as its purifiers before calling it robust."
        )
    return found


def _noise_words(rule: Decoupling, purified: bool) -> str:
    """Those that pictures are trained with."""
    return Prompts("", decoupling=rule).instance("", purified=purified).strip(", ") or "none"


def _half_aware(attack: Adaptive, purifiers: Sequence[Purifier]) -> list[str]:
    found = []
    expected, met = (_names(chain) for chain in (attack.purifiers, purifiers))
    if expected != met:
        found.append(f"It was made for the purifiers ({expected or 'none'}) and meets ({met}).")
    elif describe(list(attack.purifiers)) != describe(list(purifiers)):
        found.append(f"It was made for {met} with other settings than those it meets.")
    random = _names(each for each in purifiers if each.random)
    if random and attack.samples == 1 and attack.steps < 100:
        found.append(
            f"{random} is random and met with one draw in each of {attack.steps} steps; raise "
            "data.attack.samples or data.attack.steps."
        )
    if attack.identity >= 1:
        found.append("It never sees a purified image (data.attack.identity is 1).")
    return found


def _names(purifiers: Iterable[Purifier]) -> str:
    """Their classes in order, joined as in published policy strings."""
    return "-".join(type(each).__name__ for each in purifiers)
