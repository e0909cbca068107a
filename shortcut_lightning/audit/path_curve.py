"""Where on the path from picture to noise a model tells its members: AUC over the noise level.

The gap between members and others is said to be a bell over the level, with its peak in closed form
for Gaussian data (arXiv 2606.07271, known from its abstract and notes of third parties). The curve
is measured in every audit that asks for the set as a whole, whose losses it rests on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning.audit.evaluator import Features
from shortcut_lightning.membership.roc import auc, hanley_mcneil

LATENTS = 128  # pictures whose latents the closed form is computed from


class Level(NamedTuple):
    """One noise level. `share` is s = b / (a + b) of x_t = a x_0 + b eps: 0 is the picture, 1 noise
    alone, on models of any kind."""

    timestep: int  # as published for Stable Diffusion's schedule
    share: float
    auc: float  # of minus the loss there, members high, on the target
    error: float  # its standard error (Hanley and McNeil 1982)
    base: float | None  # AUC on the model that cannot know the members


@dataclass(frozen=True)
class PathCurve:
    """The levels from picture to noise."""

    levels: Sequence[Level]
    predicted: float  # share of the peak by the closed form

    @property
    def peak(self) -> Level:
        """Where members are told best; chosen on what it is read from, so no number to quote."""
        return max(self.levels, key=lambda level: level.auc)


def path_curve(
    timesteps: Sequence[int],
    shares: Sequence[float],
    target: Features,
    base: Features | None,
    latents: Tensor,
) -> PathCurve:
    """The curve from minus the losses, (N, T) for members and hold-outs, at T timesteps.

    `latents` are (M, C, h, w) of pictures like the judged ones.
    """
    count = len(target.members), len(target.holdouts)
    areas = _areas(target)
    unknowing = _areas(base) if base else [None] * len(areas)
    levels = [
        Level(step, share, area, hanley_mcneil(area, *count), before)
        for step, share, area, before in zip(timesteps, shares, areas, unknowing, strict=True)
    ]
    return PathCurve(levels, predicted_peak(latents))


def predicted_peak(latents: Tensor) -> float:
    """Share s of the largest gap by the closed form of arXiv 2606.07271 (secondary source).

    The weight of the data there is tr(S0^2 + S0 S1) / tr((S0 + S1)^2), with S0 = I the covariance
    of the noise and S1 that of the data; s is one minus it. S1 has more dimensions than there are
    pictures: tr(S1^2) is the unbiased estimate for normal data (Bai and Saranadasa 1996, eq. 3.2).

    Args:
        latents: (N, C, h, w), N > 2.

    Raises:
        ValueError: fewer than three latents.
    """
    if len(latents) < 3:
        raise ValueError(f"{len(latents)} latents were given; a covariance needs three.")
    rows = latents.flatten(1).double()
    freedom, dimensions = len(rows) - 1, rows.shape[1]
    centred = rows - rows.mean(0)
    inner = centred @ centred.T / freedom
    trace = float(inner.trace())
    biased = float(inner.square().sum())
    scale = freedom**2 / ((freedom - 1) * (freedom + 2))
    square = max(0.0, scale * (biased - trace**2 / freedom))
    return 1 - (dimensions + trace) / (dimensions + 2 * trace + square)


def shares_of(signal: Tensor, sigma: Tensor) -> list[float]:
    """s = b / (a + b) of levels (T,)."""
    return torch.as_tensor(sigma / (signal + sigma)).flatten().tolist()


def _areas(rows: Features) -> list[float]:
    return [auc(rows.members[:, c], rows.holdouts[:, c]) for c in range(rows.members.shape[1])]


def columns(rows: Features) -> Features:
    """Without the mean that `LossProfile` puts in front."""
    return Features(*(np.asarray(each)[:, 1:] for each in rows))
