"""CLiD (arXiv 2405.14800): members gain more from their own caption than others do.

D_i = E_{t, eps} [ |eps(x_t, t, c_i) - eps|^2 - |eps(x_t, t, c) - eps|^2 ], equations 13 and 14,
with the same timesteps and noises in both terms; c_i are poorer captions, the last one empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning.membership.base import Rule, Score
from shortcut_lightning.membership.loss import around
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.membership.reducers import Reducer, SimpleClipping
from shortcut_lightning.membership.roc import auc
from shortcut_lightning.membership.trees import boosted_trees
from shortcut_lightning.ranges import Count, Share, Timestep

Discrepancy = Literal["difference", "log_ratio"]
ALPHAS = tuple(i / 10 for i in range(11))


class CLiD(Score):
    """What both forms measure: cond0, the loss with the whole caption, then D_1, ..., D_null.

    Low cond0 and high D speak for a member. The columns are those of the published score files.

    Args:
        reducer: How captions are made poorer.
        t_centre: Middle of the timesteps; 450 suits Stable Diffusion (the paper's 440 to 460; its
            script for clipped captions asks at 485 to 505, which is 495), pixel models want about
            100.
        t_spacing: Distance between them.
        n_t: Their number. Calls per image are n_t x draws x (versions + 2).
        draws: Noises per timestep.
    """

    needs_captions = True

    def __init__(
        self,
        reducer: Reducer = SimpleClipping(),  # noqa: B008
        t_centre: Timestep = 450,
        t_spacing: Count = 10,
        n_t: Count = 3,
        draws: Count = 1,
    ) -> None:
        self.reducer = reducer
        self.t_centre = t_centre
        self.t_spacing = t_spacing
        self.n_t = n_t
        self.draws = draws

    @property
    def asks_anchor(self) -> bool:
        return self.reducer.asks_anchor

    @property
    def queries(self) -> int:
        return self.n_t * self.draws * (len(self.reducer.names) + 2)

    @property
    def columns(self) -> Sequence[str]:
        return ("cond0", *(f"D {name}" for name in self.reducer.names), "D null")

    def measure(self, probe: Probe) -> Tensor:
        """(B, k + 1) as `columns` says."""
        steps = around(self.t_centre, self.t_spacing, self.n_t)
        variants = [probe.caption, *self.reducer.reduce(probe), probe.null]
        losses = probe.losses(steps, variants, self.draws).mean((2, 3))
        return torch.cat([losses[:, :1], losses[:, 1:] - losses[:, :1]], 1)

    def oriented(self, features: np.ndarray) -> np.ndarray:
        return np.concatenate([-features[:, :1], features[:, 1:]], 1)

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        """The mean discrepancy alone, which needs no tuning."""
        return lambda features: two_features(features, "difference")[:, 1]


@dataclass(frozen=True)
class ThresholdRule:
    """alpha S(mean D) + (1 - alpha) S(-cond0), with S(a) = (a - median) / (Q75 - Q25)."""

    alpha: float
    centre: np.ndarray  # (2,) medians of -cond0 and mean D
    scale: np.ndarray  # (2,) interquartile ranges
    discrepancy: Discrepancy

    def __call__(self, features: np.ndarray) -> np.ndarray:
        scaled = (two_features(features, self.discrepancy) - self.centre) / self.scale
        return (1 - self.alpha) * scaled[:, 0] + self.alpha * scaled[:, 1]


class CLiDThreshold(CLiD):
    """CLiD_th: one mixture of loss and mean discrepancy, scaled robustly (equation 16).

    Medians, quartiles and alpha (by AUC) come from the shadow model alone.

    Args:
        reducer: How captions are made poorer.
        t_centre: Middle of the timesteps.
        t_spacing: Distance between them.
        n_t: Their number.
        draws: Noises per timestep.
        discrepancy: "difference" as published, or "log_ratio", log of the two losses' quotient,
            which does not grow with the loss itself.
        alphas: Mixtures tried.
    """

    fitting = ("discrepancy", "alphas")

    def __init__(
        self,
        reducer: Reducer = SimpleClipping(),  # noqa: B008
        t_centre: Timestep = 450,
        t_spacing: Count = 10,
        n_t: Count = 3,
        draws: Count = 1,
        discrepancy: Discrepancy = "difference",
        alphas: Sequence[Share] = ALPHAS,
    ) -> None:
        super().__init__(reducer, t_centre, t_spacing, n_t, draws)
        self.discrepancy: Discrepancy = discrepancy
        self.alphas = alphas

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        return fit_threshold_rule(members, holdouts, self.discrepancy, self.alphas)

    def calibrated(self, features: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Differences of losses, or for log-ratios their quotients, whose log-ratios are then the
        differences of the models' log-ratios."""
        if self.discrepancy == "difference":
            return super().calibrated(features, base)
        here, there = (np.concatenate([f[:, :1], f[:, :1] + f[:, 1:]], 1) for f in (features, base))
        quotients = here / there
        return np.concatenate([quotients[:, :1], quotients[:, 1:] - quotients[:, :1]], 1)


class CLiDTrees(CLiD):
    """CLiD_vec: boosted trees on the columns as they are."""

    refits_in_bootstrap = False

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        return boosted_trees(members, holdouts, seed)


def fit_threshold_rule(
    members: np.ndarray,
    holdouts: np.ndarray,
    discrepancy: Discrepancy = "difference",
    alphas: Sequence[float] = ALPHAS,
) -> ThresholdRule:
    """Scales and alpha from rows of shadow members and hold-outs, both with CLiD's columns.

    Of equally good alphas the smallest is taken.
    """
    inside, outside = (two_features(rows, discrepancy) for rows in (members, holdouts))
    low, centre, high = np.quantile(np.concatenate([inside, outside]), (0.25, 0.5, 0.75), axis=0)
    scale = np.where(high > low, high - low, 1.0)
    inside, outside = (inside - centre) / scale, (outside - centre) / scale
    aucs = [auc(inside @ w, outside @ w) for w in (np.array([1 - a, a]) for a in alphas)]
    return ThresholdRule(float(alphas[int(np.argmax(aucs))]), centre, scale, discrepancy)


def two_features(features: np.ndarray, discrepancy: Discrepancy) -> np.ndarray:
    """(N, 2): -cond0 and the mean discrepancy; both high for members."""
    cond, gaps = features[:, :1], features[:, 1:]
    if discrepancy == "log_ratio":
        gaps = np.log1p(np.maximum(gaps / cond, -0.999999))
    return np.concatenate([-cond, gaps.mean(1, keepdims=True)], 1)
