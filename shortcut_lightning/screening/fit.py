"""Trains the detector of protections, and measures it with each attack left out.

    python -m shortcut_lightning.screening.fit runs/protected --photographs FOLDER

Writes the weights with their error rates, and the rows of the card. Thresholds and calibration come
from the people of training, by scores of models that had not seen them; what is reported comes from
other people and other photographs.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse import auto_cli

from shortcut_lightning.concepts.protection import RATES, ProtectionNetwork
from shortcut_lightning.ranges import Count
from shortcut_lightning.screening.table import Row, Table, build

log = logging.getLogger(__name__)

#: Attacks that resemble one another: what one of them teaches helps to find the others.
GROUPS = {
    "pretrained denoiser": ("advdm", "caat"),
    "trained surrogate": ("aspl", "easpl", "fsmg", "metacloak", "simac"),
    "encoder": ("glaze", "mist", "photoguard_encoder"),
    "score distillation": ("sds", "sdst"),
    "sampling": ("photoguard_diffusion",),
    "adaptive": ("adaptive_code_sr", "adaptive_tvm"),
}
_HIDDEN, _MEMBERS = 32, 3  # units of a network, and networks whose log-odds are averaged
_STRENGTH = 1.0  # of the weights' decay
_PASSES = 40  # over the rows
_LEAST_SCALE = 1e-3
_FOLDS = 3  # of people, for thresholds and calibration


def train(table: Table) -> ProtectionNetwork:
    """A network from the rows of `table`, all of them for training."""
    labels, weight = _labels(table.rows), _weights(table.rows)
    network = _fitted(table.statistics, labels, weight)
    scores = np.empty(len(labels), np.float32)
    for inside, outside in _folds(table.rows):
        crossed = _fitted(table.statistics[inside], labels[inside], weight[inside])
        scores[outside] = score(crossed, table.statistics[outside])
    slope, offset = _calibration(scores, labels, weight)
    with torch.no_grad():
        network.outer.weight.mul_(slope)
        network.outer.bias.mul_(slope).add_(offset)
    ordinary = slope * scores[[is_ordinary(row) for row in table.rows]] + offset
    network.thresholds.copy_(torch.tensor(np.quantile(ordinary, [1 - rate for rate in RATES])))
    return network


def score(network: ProtectionNetwork, statistics: np.ndarray) -> np.ndarray:
    """(N, F) -> (N,) log-odds."""
    with torch.no_grad():
        return network.of_statistics(torch.from_numpy(statistics)).numpy()


def is_ordinary(row: Row) -> bool:
    """Whether false alarms are counted on it: a photograph as people publish them, edited or not.
    Noise that somebody added to hide from a model is judged apart."""
    return row.kind not in ("protected", "random noise", "uniform noise", "sign noise")


class LeftOut(NamedTuple):
    """A training without some attacks, and without the people they were made on."""

    attacks: tuple[str, ...]
    training: Table
    tested: Table  # protected pictures of these attacks, for the card


def left_out(table: Table, attacks: Sequence[str]) -> LeftOut:
    """The parts of a table for one."""
    people = {row.people for row in table.rows if row.attack in attacks}
    seen = [
        row.part == "training" and row.attack not in attacks and row.people not in people
        for row in table.rows
    ]
    tested = [row.part == "card" and row.attack in attacks for row in table.rows]
    return LeftOut(tuple(attacks), table.where(seen), table.where(tested))


def _labels(rows: Sequence[Row]) -> np.ndarray:
    return np.array([row.kind == "protected" for row in rows], np.int64)


def _weights(rows: Sequence[Row]) -> np.ndarray:
    """Every attack counts alike, and all of them together as much as the others."""
    names = [row.attack for row in rows]
    counts = {name: names.count(name) for name in set(names)}
    shares = {name: 1.0 if not name else 1 / max(1, len(counts) - 1) for name in counts}
    return np.array([shares[name] / counts[name] for name in names]) * len(rows) / 2


def _fitted(statistics: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> ProtectionNetwork:
    """Several small networks side by side in one, whose log-odds are averaged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = ProtectionNetwork(statistics.shape[1], _HIDDEN * _MEMBERS)
    network.mean.copy_(torch.from_numpy(statistics.mean(0)))
    network.scale.copy_(torch.from_numpy(statistics.std(0) + _LEAST_SCALE))
    standard = network.standard(torch.from_numpy(statistics)).numpy()
    members = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is the recipe's
        for seed in range(_MEMBERS):
            member = MLPClassifier(
                _HIDDEN, alpha=_STRENGTH, max_iter=_PASSES, random_state=seed
            ).fit(standard, labels, sample_weight=weight)
            members.append(member)
    inner, outer = ([m.coefs_[layer] for m in members] for layer in (0, 1))
    biases, ends = ([m.intercepts_[layer] for m in members] for layer in (0, 1))
    with torch.no_grad():
        network.inner.weight.copy_(torch.from_numpy(np.concatenate(inner, 1).T))
        network.inner.bias.copy_(torch.from_numpy(np.concatenate(biases)))
        network.outer.weight.copy_(torch.from_numpy(np.concatenate(outer).T / _MEMBERS))
        network.outer.bias.copy_(torch.from_numpy(np.mean(ends, 0)))
    return network.eval().requires_grad_(False)


def _folds(rows: Sequence[Row]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of the rows inside and outside; nobody is on both sides."""
    from sklearn.model_selection import GroupKFold

    people = [row.people for row in rows]
    yield from GroupKFold(_FOLDS).split(people, groups=people)


def _calibration(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make scores log-odds (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(scores[:, None], labels, sample_weight=weight)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def main(
    folder: str,
    photographs: str = "",
    output: str = "runs/protection",
    rows: str = "configs/screening/results",
    workers: Count = 1,
) -> None:
    """Trains and measures.

    Args:
        folder: What `screening.pictures` has written.
        photographs: Folder of real photographs, with subfolders, that the card is measured on.
        output: Folder for the weights.
        rows: Folder for the rows of the card.
        workers: Processes that share the work.
    """
    from shortcut_lightning.screening import card

    log.info("counting pictures")
    table = build(folder, photographs, workers)
    log.info("%d pictures; training", len(table.rows))
    network = train(table.where([row.part == "training" for row in table.rows]))
    network.save(Path(output))
    log.info("trained; measuring without each attack")
    card.write(network, table, Path(rows), Path(output) / "card.json", workers)


if __name__ == "__main__":
    auto_cli(main)
