"""The denoising loss itself: what all grey-box scores build on.

Loss attack: Matsumoto et al., arXiv 2302.03262. Monte-Carlo: its mean over timesteps, as CLiD
(arXiv 2405.14800) compares with.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from shortcut_lightning.membership.base import Rule, Score
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.membership.roc import auc
from shortcut_lightning.ranges import Count, Timestep


def around(centre: int, spacing: int, count: int) -> list[int]:
    """t_i = centre + (i - floor(n / 2)) * spacing, CLiD's list of timesteps."""
    return [centre + (i - count // 2) * spacing for i in range(count)]


class Loss(Score):
    """Minus the mean squared error of the predicted noise at one timestep, given the caption.

    Args:
        timestep: Where the loss is taken.
        draws: Noises the loss is averaged over.
    """

    def __init__(self, timestep: Timestep = 450, draws: Count = 1) -> None:
        self.timestep = timestep
        self.draws = draws

    @property
    def queries(self) -> int:
        return self.draws

    def measure(self, probe: Probe) -> Tensor:
        return -probe.losses([self.timestep], [probe.caption], self.draws).mean((1, 2, 3))[:, None]


class MonteCarlo(Score):
    """Minus the mean loss over a few timesteps: CLiD with the discrepancy weighted zero.

    Args:
        t_centre: Middle of the timesteps.
        t_spacing: Distance between them.
        n_t: Their number.
        draws: Noises per timestep.
    """

    def __init__(
        self, t_centre: Timestep = 450, t_spacing: Count = 10, n_t: Count = 3, draws: Count = 1
    ) -> None:
        self.t_centre = t_centre
        self.t_spacing = t_spacing
        self.n_t = n_t
        self.draws = draws

    @property
    def queries(self) -> int:
        return self.n_t * self.draws

    def measure(self, probe: Probe) -> Tensor:
        steps = around(self.t_centre, self.t_spacing, self.n_t)
        return -probe.losses(steps, [probe.caption], self.draws).mean((1, 2, 3))[:, None]


class LossProfile(Score):
    """Losses at many timesteps, one column each: a feature of dataset-level inference (CDI, arXiv
    2411.12858). As a score, their mean.

    Args:
        timesteps: Where the losses are taken.
    """

    def __init__(self, timesteps: Sequence[Timestep] = tuple(range(0, 1000, 100))) -> None:
        self.timesteps = timesteps

    @property
    def queries(self) -> int:
        return len(self.timesteps)

    @property
    def columns(self) -> Sequence[str]:
        return ("score", *(f"t{step}" for step in self.timesteps))

    def measure(self, probe: Probe) -> Tensor:
        import torch

        losses = -probe.losses(list(self.timesteps), [probe.caption]).mean((1, 3))
        return torch.cat([losses.mean(1, keepdim=True), losses], 1)


class LossPeak(LossProfile):
    """The loss at the one of several timesteps that tells the shadow's members best. What is
    measured is what `LossProfile` measures. On the audited model's own half of the pictures, where
    there is no shadow, the timestep is chosen on those that are not judged.

    Args:
        timesteps: Those to choose from.
    """

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        areas = [auc(members[:, c], holdouts[:, c]) for c in range(1, 1 + len(self.timesteps))]
        column = 1 + int(np.argmax(areas))
        return lambda features: features[:, column]
