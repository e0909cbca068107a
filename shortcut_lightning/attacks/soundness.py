"""When an evaluation of a defence is not to be believed.

The questions are those of Carlini et al. (arXiv 1902.06705) and of AutoAttack's own checks (arXiv
2003.01690).
"""

from collections.abc import Iterable, Sequence

from shortcut_lightning.attacks.adaptive import Adaptive
from shortcut_lightning.attacks.base import Attack, NoAttack
from shortcut_lightning.attacks.random_noise import RandomNoise
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.oracle import Oracle


def soundness(attack: Attack, purifiers: Sequence[Purifier]) -> list[str]:
    """Why results of this attack against this chain of purifiers would mislead; empty when nothing
    speaks against them. Each is one sentence."""
    knows_all = any(isinstance(each, Oracle) for each in purifiers)
    if isinstance(attack, NoAttack | RandomNoise) or not purifiers or knows_all:
        return []
    hiding = _names(each for each in purifiers if not each.differentiable)
    random = _names(each for each in purifiers if each.random)
    if not isinstance(attack, Adaptive):
        doubts = []
        if random:
            doubts.append(
                f"{random} is random and {type(attack).__name__} does not average over it; "
                "use Adaptive with this chain as its purifiers before calling it robust."
            )
        if hiding:
            doubts.append(
                f"{hiding} passes no useful gradient and {type(attack).__name__} knows nothing of "
                "it; use Adaptive with this chain as its purifiers before calling it robust."
            )
        return doubts
    doubts = []
    expected, met = (_names(chain) for chain in (attack.purifiers, purifiers))
    if expected != met:
        doubts.append(f"It was made for the purifiers ({expected or 'none'}) and meets ({met}).")
    elif [vars(each) for each in attack.purifiers] != [vars(each) for each in purifiers]:
        doubts.append(f"It was made for {met} with other settings than those it meets.")
    if random and attack.samples == 1 and attack.steps < 100:
        doubts.append(
            f"{random} is random and met with one draw in each of {attack.steps} steps; raise "
            "data.attack.samples or data.attack.steps."
        )
    if attack.identity >= 1:
        doubts.append("It never sees a purified image (data.attack.identity is 1).")
    return doubts


def _names(purifiers: Iterable[Purifier]) -> str:
    """Their classes in order, joined as in published policy strings."""
    return "-".join(type(each).__name__ for each in purifiers)
