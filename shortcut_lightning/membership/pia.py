"""PIA (arXiv 2305.18355): the prediction at t = 0 taken as the noise, compared with the prediction
for the image noised by it. And SimA (arXiv 2509.25003): the norm of the prediction alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning.membership.base import Rule, Score
from shortcut_lightning.membership.mask import kept
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.membership.roc import auc
from shortcut_lightning.ranges import Positive, SomeShare, Timestep


class _BestTimestep(Score):
    """Columns are timesteps; with more than one, the shadow model's AUC chooses."""

    timesteps: Sequence[Timestep]

    @property
    def columns(self) -> Sequence[str]:
        return tuple(f"t{step}" for step in self.timesteps)

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        aucs = [auc(members[:, i], holdouts[:, i]) for i in range(members.shape[1])]
        best = int(np.argmax(aucs))
        return lambda features: features[:, best]


class PIA(_BestTimestep):
    """Minus sum |e0 - eps(x_t(z, e0), t, c)|^p with e0 = eps(z, 0, c).

    Published settings: p 4 and t 200 (pixel models), p 5 and t 200 (CDI). SimA's grid for Stable
    Diffusion is t 0, 10, ..., 190; give it as `timesteps` and the shadow model chooses.

    Args:
        timesteps: Where the second prediction is made.
        p: The exponent.
        normalize: PIAN: e0 divided by its mean absolute value, times sqrt(2 / pi), which is what
            standard normal noise has. (CDI's code has sqrt(pi / 2) instead.)
        keep: Share of latent dimensions that count; below 1 see `mask.kept`.
    """

    def __init__(
        self,
        timesteps: Sequence[Timestep] = (200,),
        p: Positive = 4.0,
        normalize: bool = False,
        keep: SomeShare = 1.0,
    ) -> None:
        self.timesteps = timesteps
        self.keep = keep
        self.p = p
        self.normalize = normalize

    @property
    def queries(self) -> int:
        return 1 + len(self.timesteps)

    def measure(self, probe: Probe) -> Tensor:
        first = probe.epsilon(probe.latents, 0, probe.caption)
        if self.normalize:
            size = first.abs().flatten(1).mean(1).view(-1, 1, 1, 1)
            first = first / size * (2 / torch.pi) ** 0.5
        counted, distances = kept(probe, self.keep), []
        for step in self.timesteps:
            noisy = probe.add_noise(probe.latents, first, step)
            second = probe.epsilon(noisy, step, probe.caption)
            distances.append(((first - second).abs().pow(self.p) * counted).flatten(1).sum(1))
        return -torch.stack(distances, 1)


class SimA(_BestTimestep):
    """Minus the fourth power of the 4-norm of eps(z, t, c), for the latent without noise.

    Args:
        timesteps: Where the prediction is made; the paper's grid is 0, 10, ..., 190.
        use_caption: Off gives the unconditional mode, with the empty caption.
        keep: Share of latent dimensions that count; below 1 see `mask.kept`.
    """

    def __init__(
        self,
        timesteps: Sequence[Timestep] = (100,),
        use_caption: bool = True,
        keep: SomeShare = 1.0,
    ) -> None:
        self.timesteps = timesteps
        self.keep = keep
        self.use_caption = use_caption

    @property
    def queries(self) -> int:
        return len(self.timesteps)

    def measure(self, probe: Probe) -> Tensor:
        text = probe.caption if self.use_caption else probe.null
        counted = kept(probe, self.keep)
        norms = [
            (probe.epsilon(probe.latents, step, text).pow(4) * counted).flatten(1).sum(1)
            for step in self.timesteps
        ]
        return -torch.stack(norms, 1)
