"""Does a network that regresses the perturbation purify better? (LightShed, USENIX Security 2025)

    python -m shortcut_lightning.screening.pictures runs/protected --rounds 3 --elsewhere false
    python -m shortcut_lightning.screening.remover runs/protected

For each family of attacks a network learns from all the others what they add, and nothing for
clean pictures. What it leaves of the family that it has never seen is compared with what purifiers
leave of the same pictures, in pixels and where it counts: in the latents of both embedded models.
The method's paper has no code; this follows its idea alone.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jsonargparse import auto_cli
from torch import Tensor
from torch.nn import functional

from shortcut_lightning import draws
from shortcut_lightning.files import csv_rows
from shortcut_lightning.files.images import round_to_8_bits
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.pocket.networks import Restorer, load_restoration
from shortcut_lightning.ranges import Count
from shortcut_lightning.screening import pictures
from shortcut_lightning.screening.fit import GROUPS
from shortcut_lightning.screening.pictures import drawn

if TYPE_CHECKING:
    from shortcut_lightning.backbones.base import Backbone
    from shortcut_lightning.purifiers.base import Purifier

log = logging.getLogger(__name__)

REMOVED = "removed.csv"
FAMILIES = ("pocket", "pocket-flow")
#: What else is asked of the same pictures: presets of purifiers.
PURIFIERS = ("pocket_restoration", "jpeg_resize", "tvm", "code_sr_pocket")
_CLEAN_SEED, _POOL, _HELD_OUT = 750_000, 240, 24  # people of the world to learn on, and to judge by
_RATE, _CLEAN, _OWN, _MOVED = 1e-3, 4, 6, 6  # pictures of a batch by kind
Change = Callable[[Tensor], Tensor]  # (N, 3, 64, 64) in [0, 1] -> the same


class Pairs(NamedTuple):
    """Pictures of one attack and radius."""

    attack: str
    epsilon: int  # in /255
    clean: Tensor  # (N, 3, 64, 64) in [0, 1]
    protected: Tensor


class Removed(NamedTuple):
    """What a purifier leaves: squared differences to the clean pictures, as shares of what they
    were before. Without an attack: of clean pictures, whose own latents' squares are the whole."""

    left_out: str  # the family of attacks that the regression has not seen
    attack: str
    epsilon: int
    purifier: str
    pictures: int
    pixels: float
    pocket: float  # in its latents
    pocket_flow: float


def main(
    folder: str,
    rows: str = "configs/screening/results",
    steps: Count = 2000,
    seed: int = 0,
    groups: Sequence[str] = (),
) -> None:
    """Trains a network for each family of attacks that is left out; writes the rows of all.

    Args:
        folder: What `screening.pictures` has written.
        rows: Folder for the rows.
        steps: Of each training; some six minutes of one core.
        seed: Of the trainings.
        groups: Families of attacks, all by default; rows of others that are there are kept.

    Raises ValueError for a folder without pictures, or a family of attacks that is none.
    """
    torch.set_num_threads(1)
    from shortcut_lightning import backbones

    if unknown := sorted(set(groups) - set(GROUPS)):
        raise ValueError(f"groups has {unknown}; there are {sorted(GROUPS)}.")
    everything = read(folder)
    models = {name: backbones.load(name) for name in FAMILIES}
    path = Path(rows) / REMOVED
    for group in groups or GROUPS:
        seen = [pairs for pairs in everything if pairs.attack not in GROUPS[group]]
        unseen = [pairs for pairs in everything if pairs.attack in GROUPS[group]]
        if not seen or not unseen:
            continue
        log.info("%s: learning from %d others", group, sum(len(each.clean) for each in seen))
        network = train(seen, steps, seed)
        changes = {"regression": network} | purifiers(models["pocket"])
        kept = csv_rows.read(path, Removed) if path.exists() else []
        others = [row for row in kept if row.left_out != group]
        csv_rows.write(path, others + list(judged(group, changes, unseen, models)))


def read(folder: str) -> list[Pairs]:
    """The small pictures of the world that were protected on `pocket`.

    Raises ValueError for a folder without them.
    """
    found = []
    for file in pictures.files_of(folder, "*-world-64-pocket-*-*"):
        made, levels = pictures.read(file)
        if made.family != "pocket":  # whose name begins alike
            continue
        clean, protected = (levels[name].float() / 255 for name in ("clean", "protected"))
        found.append(Pairs(made.attack, made.epsilon, clean, protected))
    return found


def train(pairs: Sequence[Pairs], steps: int, seed: int) -> Restorer:
    """A network that takes off what these attacks add. It begins as the restoration network that
    comes with the package, so what it learns is what restoration does not know yet."""
    network = load_restoration().requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    people = drawn(_CLEAN_SEED, _POOL, 64)
    for step in range(steps):
        chance = draws.generator(seed, "remover", step)
        given, wanted = _batch(pairs, people, np.random.default_rng(chance.initial_seed()))
        loss = functional.mse_loss(network(given), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            log.info("step %d, loss %.2e", step, loss.item())
    return network.eval().requires_grad_(False)


def _batch(
    pairs: Sequence[Pairs], people: Tensor, chance: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Clean pictures, protected ones, and perturbations that were moved to other people and made
    smaller: people cost less than perturbations."""
    given, wanted = [], []
    for _ in range(_CLEAN):
        given.append(people[chance.integers(len(people))])
        wanted.append(given[-1])
    for moved in (False,) * _OWN + (True,) * _MOVED:
        some = pairs[int(chance.integers(len(pairs)))]
        place = int(chance.integers(len(some.clean)))
        clean, protected = some.clean[place], some.protected[place]
        if moved:
            onto = people[chance.integers(len(people))]
            added = (protected - clean) * float(chance.uniform(0.5, 1))
            clean, protected = onto, round_to_8_bits((onto + added).clamp(0, 1))
        given.append(protected)
        wanted.append(clean)
    mirrored = torch.from_numpy(chance.random(len(given)) < 0.5)[:, None, None, None]
    first, second = torch.stack(given), torch.stack(wanted)
    return (
        torch.where(mirrored, first.flip(-1), first),
        torch.where(mirrored, second.flip(-1), second),
    )


def purifiers(backbone: "Backbone") -> dict[str, Change]:
    """What the regression is compared with, as functions of pictures alone."""
    from shortcut_lightning.purifiers import Purifier

    def chain(preset: str) -> Sequence[Purifier]:
        found: Sequence[Purifier] = pictures.of_preset(preset, "purifiers", Sequence[Purifier])
        return found

    return {name: _chained(chain(name), backbone) for name in PURIFIERS}


def _chained(chain: Sequence["Purifier"], backbone: "Backbone") -> Change:
    def change(images: Tensor) -> Tensor:
        for number, purifier in enumerate(chain):
            chance = draws.generator(0, f"remover purify-{number}", 0)
            prompts = ["a photo of sks person"] * len(images)
            images = purifier(images, backbone, prompts, generator=chance)
        return images

    return change


def judged(
    left_out: str,
    changes: Mapping[str, Change],
    tested: Sequence[Pairs],
    models: Mapping[str, "Backbone"],
) -> Iterator[Removed]:
    """Rows of every purifier on these pictures, and on clean ones that nobody has learnt from."""
    clean = drawn(_CLEAN_SEED + 1, _HELD_OUT, 64)
    with torch.no_grad():
        for pairs in [*tested, Pairs("", 0, clean, clean)]:
            for name, change in changes.items():
                cleaned = round_to_8_bits(change(pairs.protected))
                left = [
                    _left(view(cleaned), view(pairs.protected), view(pairs.clean))
                    for view in (torch.Tensor.clone, *map(_latents, models.values()))
                ]
                yield Removed(
                    left_out, pairs.attack, pairs.epsilon, name, len(cleaned), *map(_short, left)
                )


def _latents(model: "Backbone") -> Change:
    return lambda images: model.encode(images).mean


def _left(cleaned: Tensor, protected: Tensor, clean: Tensor) -> float:
    before = (protected - clean).square().sum()
    whole = before if before > 0 else clean.square().sum()
    return float((cleaned - clean).square().sum() / whole)


def _short(share: float) -> float:
    return round(share, 4)


class Removals:
    """The rows in a folder, for the page."""

    def __init__(self, folder: Path) -> None:
        path = folder / REMOVED
        self.rows: list[Removed] = csv_rows.read(path, Removed) if path.exists() else []

    @property
    def purifiers(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(row.purifier for row in self.rows))

    def left(self, purifier: str, field: str, **where: Any) -> Estimate:
        """The mean over attacks and radii of what it leaves, with its interval over attacks."""
        return self._over_attacks(lambda row: getattr(row, field), purifier, where)

    def beside(self, purifier: str, other: str, field: str) -> Estimate:
        """How much less it leaves than the other, by attack; above zero where it is better."""
        theirs: dict[tuple[str, int], list[float]] = {}  # a round of pictures has a row of its own
        for row in self._of(other):
            theirs.setdefault((row.attack, row.epsilon), []).append(getattr(row, field))
        return self._over_attacks(
            lambda row: float(np.mean(theirs[row.attack, row.epsilon])) - getattr(row, field),
            purifier,
            {},
        )

    def harm(self, purifier: str, field: str) -> float:
        """What it does to clean pictures, mean over the trainings."""
        own = [row for row in self.rows if row.purifier == purifier and not row.attack]
        return float(np.mean([getattr(row, field) for row in own]))

    def _of(self, purifier: str) -> list[Removed]:
        return [row for row in self.rows if row.purifier == purifier and row.attack]

    def _over_attacks(
        self, value: Callable[[Removed], float], purifier: str, where: Mapping[str, Any]
    ) -> Estimate:
        own = [
            row
            for row in self._of(purifier)
            if all(getattr(row, field) == wanted for field, wanted in where.items())
        ]
        attacks = sorted({row.attack for row in own})
        means = [np.mean([value(row) for row in own if row.attack == each]) for each in attacks]
        return mean_estimate(torch.tensor(means, dtype=torch.float32))


if __name__ == "__main__":
    auto_cli(main)
