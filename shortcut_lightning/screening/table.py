"""Every picture that the detector is trained on or judged by, as a row of statistics."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from joblib import Parallel, delayed
from safetensors.torch import load_file
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.concepts.noise_statistics import statistics
from shortcut_lightning.files.images import resize_shorter_side, round_to_8_bits
from shortcut_lightning.screening.pictures import (
    GENERATED,
    RADII,
    cut,
    drawn,
    files_of,
    photographs_of,
    read,
)
from shortcut_lightning.screening.variants import INNOCENT, PUBLISHED, published, uniform_noise

_FIRST_SEED = 740_000  # of the world
_PEOPLE = {64: 80, 128: 24, 256: 8}  # clean ones beside the protected, by their pictures' side
_GRAINY = 32  # people in noisy, and as many in blurry pictures
_CUTS = {64: 24, 128: 24, 256: 12}  # of the photographs of training
_PUBLISHED = 3  # random ways of publication of a picture, in training
# Onto what every perturbation of training is put, beside its own picture.
_ONTO = (("world", 64), ("world", 128), ("sample", 64), ("sample", 128))
_EDITED = 3  # edits of a picture, in training
_LARGE = 512  # a side from which the card publishes in a few ways alone
_AT_A_TIME = 32
_JOB = 24  # originals that a process takes at a time
J = TypeVar("J")
R = TypeVar("R")


class Row(NamedTuple):
    """A picture: what was done to it, and to whom it belongs."""

    part: str  # "training" or "card"
    people: str  # rows of one name share people or photographs
    source: str  # "world", "sample", "photographs" or "generated"
    side: int  # before publication, in pixels
    kind: str  # "protected", "clean", an edit's name, "noisy", "blurry" or "generated"
    publication: str  # of `PUBLISHED`, or "random"
    attack: str = ""
    family: str = ""
    epsilon: int = 0


Job = Path | list[tuple[Row, Tensor]]  # a file of protected pictures, or some others


class Table(NamedTuple):
    """Rows, and (N, F) float32 statistics of their pictures."""

    rows: list[Row]
    statistics: np.ndarray

    def where(self, chosen: Sequence[bool] | np.ndarray) -> "Table":
        """A part of it."""
        keep = np.flatnonzero(chosen)
        return Table([self.rows[index] for index in keep], self.statistics[keep])


def build(folder: str, photographs: str = "", workers: int = 1) -> Table:
    """Of all files in `folder` that `pictures.py` has made; `photographs` are for the card alone.
    The same for any number of `workers`, which are processes.

    Raises ValueError for a folder without such files.
    """
    root = Path(folder).expanduser()
    files = files_of(folder)
    everything = list(_originals_of(root, photographs))
    jobs: list[Job] = [*files, *(everything[i : i + _JOB] for i in range(0, len(everything), _JOB))]
    return in_order(in_processes(_of_job, jobs, workers))


def in_order(tables: Sequence[Table]) -> Table:
    """All of their rows, in an order that does not depend on who counted them."""
    rows = [row for table in tables for row in table.rows]
    statistics = np.concatenate([table.statistics for table in tables])
    keys = [(*row, *numbers[:4].tolist()) for row, numbers in zip(rows, statistics, strict=True)]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    return Table([rows[index] for index in order], statistics[order])


def in_processes(call: Callable[[J], R], jobs: Sequence[J], workers: int) -> list[R]:
    """`call` of each, in their order."""
    done: list[R] = Parallel(n_jobs=workers)(delayed(call)(job) for job in jobs)
    return done


def _of_job(job: Job) -> Table:
    """Of a file of protected pictures, or of some others."""
    torch.set_num_threads(1)
    counted = _Counted()
    for row, image in _protected(job) if isinstance(job, Path) else _unprotected(job):
        counted.add(row, image)
    return counted.table()


def _originals_of(root: Path, photographs: str) -> Iterator[tuple[Row, Tensor]]:
    for part in ("training", "card"):
        yield from _originals(root, part, photographs)


class _Counted:
    """Pictures of one shape are counted together, and forgotten."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[int, ...], list[tuple[Row, Tensor]]] = {}
        self.rows: list[Row] = []
        self.parts: list[Tensor] = []

    def add(self, row: Row, image: Tensor) -> None:
        group = self.waiting.setdefault(tuple(image.shape), [])
        group.append((row, image))
        if len(group) == _AT_A_TIME or image.numel() > 3 * 256 * 256:
            self._count(tuple(image.shape))

    def _count(self, shape: tuple[int, ...]) -> None:
        group = self.waiting.pop(shape)
        self.rows += [row for row, _ in group]
        self.parts.append(statistics(torch.stack([image for _, image in group])))

    def table(self) -> Table:
        for shape in list(self.waiting):
            self._count(shape)
        return Table(self.rows, torch.cat(self.parts).numpy())


def _protected(file: Path) -> Iterator[tuple[Row, Tensor]]:
    made, levels = read(file)
    people = f"{made.round} {made.source} {made.side} {made.family} {made.attack}"
    clean = Row("training", people, made.source, made.side, "clean", "")
    row = clean._replace(
        kind="protected", attack=made.attack, family=made.family, epsilon=made.epsilon
    )
    if made.source != "photographs" and made.family == "pocket":  # another one is for the card
        for image, before in zip(levels["protected"], levels["clean"], strict=True):
            yield from _ways(row, image.float() / 255)
            yield from _transplanted(row, (image.float() - before.float()) / 255)
    if made.source != "sample":
        for image in levels["protected"]:
            yield from _ways(row._replace(part="card"), image.float() / 255)
    if made.epsilon == max(RADII) and made.source == "world":  # the same ones for every radius
        for image in levels["clean"]:
            yield from _ways(clean, image.float() / 255)


def _transplanted(row: Row, perturbation: Tensor) -> Iterator[tuple[Row, Tensor]]:
    """The perturbation, turned, mirrored and continued by its mirror image, on other people and on
    photographs, published by chance: statistics hardly depend on whom it was made for, people cost
    less than perturbations, and a size or a kind of picture must not mean that it is clean."""
    chance = _chance(row, perturbation)
    for source, side in _ONTO:
        pool = _pool(source, side)
        turned = torch.rot90(perturbation, int(chance.integers(4)), (1, 2))
        turned = turned.flip(2) if chance.random() < 0.5 else turned
        below = torch.cat([turned, turned.flip(1)], 1)
        spread = torch.cat([below, below.flip(2)], 2)[:, :side, :side]
        onto = pool[int(chance.integers(len(pool)))]
        changed = round_to_8_bits((onto + spread).clamp(0, 1))
        after = row._replace(source=source, side=side, publication="random")
        yield after, published(changed, chance) if chance.random() < 0.75 else changed


@cache
def _pool(source: str, side: int) -> Tensor:
    if source == "world":
        return drawn(_FIRST_SEED + 7, 48, side)
    everything, chance = photographs_of(""), np.random.default_rng(_FIRST_SEED + 7)
    return torch.stack([cut(everything[i % len(everything)], side, chance) for i in range(48)])


def _unprotected(originals: Sequence[tuple[Row, Tensor]]) -> Iterator[tuple[Row, Tensor]]:
    for row, image in originals:
        yield from _ways(row, image)
        if row.kind == "clean" and row.side < _LARGE:
            yield from _edited(row, image)
        if row.kind == "clean" and row.part == "card" and row.side == 64:
            yield from _noisy(row, image)


def _originals(root: Path, part: str, photographs: str) -> Iterator[tuple[Row, Tensor]]:
    seed = _FIRST_SEED + (part == "card")
    for side, count in _PEOPLE.items():
        for index, image in enumerate(drawn(seed + 10 * side, count, side)):
            yield Row(part, f"{part} {side} {index}", "world", side, "clean", ""), image
    for number, kind in enumerate(("noisy", "blurry")):
        for index, image in enumerate(drawn(seed + 2 + 2 * number, _GRAINY, 64, quality=kind)):
            yield Row(part, f"{part} {kind} {index}", "world", 64, kind, ""), image
    generated = load_file(root / GENERATED)[part] if (root / GENERATED).exists() else ()
    for index, levels in enumerate(generated):
        row = Row(part, f"{part} generated {index}", "generated", 64, "generated", "")
        yield row, levels.float() / 255
    if part == "training":
        everything, chance = photographs_of(""), np.random.default_rng(_FIRST_SEED)
        for side, count in _CUTS.items():
            for index in range(count):
                image = cut(everything[index % len(everything)], side, chance)
                yield Row(part, f"cut {side} {index}", "sample", side, "clean", ""), image
    elif photographs:
        for index, photograph in enumerate(photographs_of(photographs)):
            for side in (64, 256, _LARGE):
                row = Row(part, f"photograph {index}", "photographs", side, "clean", "")
                yield row, resize_shorter_side(photograph, side)


def _ways(row: Row, image: Tensor) -> Iterator[tuple[Row, Tensor]]:
    """The picture as made, and published: by chance in training, in every way for the card."""
    if row.part == "card":
        for name in PUBLISHED if row.side < _LARGE else ("as made", "JPEG 75", "half size"):
            yield row._replace(publication=name), PUBLISHED[name](image)
        return
    yield row._replace(publication="as made"), image
    chance = _chance(row, image)
    for _ in range(_PUBLISHED):
        yield row._replace(publication="random"), published(image, chance)


def _edited(row: Row, image: Tensor) -> Iterator[tuple[Row, Tensor]]:
    """What protects nothing."""
    chance = _chance(row, image)
    if row.part == "training":
        for name in chance.choice(sorted(INNOCENT), _EDITED, replace=False).tolist():
            edited = INNOCENT[name](image, chance)
            way = row._replace(kind=name, publication="random")
            yield way, published(edited, chance) if chance.random() < 0.75 else edited
        return
    for name, edit in INNOCENT.items():
        if name != "random noise":
            yield row._replace(kind=name, publication="as made"), edit(image, chance)


def _noisy(row: Row, image: Tensor) -> Iterator[tuple[Row, Tensor]]:
    """Noise of every radius, for the card."""
    chance = _chance(row, image)
    for epsilon in RADII:
        for kind, sign in (("uniform noise", False), ("sign noise", True)):
            noisy = uniform_noise(image, chance, epsilon, sign)
            yield row._replace(kind=kind, epsilon=epsilon, publication="as made"), noisy


def _chance(row: Row, image: Tensor) -> np.random.Generator:
    """Of a picture's own: others may come or go."""
    key = int((image * 255).round().sum().item())
    generator = draws.generator(key, f"screening {row}", 0)
    return np.random.default_rng(generator.initial_seed())
