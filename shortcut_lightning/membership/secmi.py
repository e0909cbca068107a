"""SecMI (arXiv 2302.01316): how well a deterministic step forward and back returns to its start.

phi(x, s -> u) = sqrt(abar_u) (x - sqrt(1 - abar_s) eps(x, s)) / sqrt(abar_s)
                 + sqrt(1 - abar_u) eps(x, s)

x_s comes from the chain 0 -> k -> ... -> s, then psi = phi(phi(x_s, s -> s + k), s + k -> s).

With u = s + k, x_s - psi is a constant times the difference of two neighbouring predictions on the
image's own path,

c (eps(x_u, u) - eps(x_s, s)),  c = sqrt(abar_s) sqrt(1 - abar_u) / sqrt(abar_u) - sqrt(1 - abar_s),

so it says nothing about how good the predictions are. A model that remembers an image responds more
strongly to the step in x and, later in training, to the step in t as well; the two cancel in part,
so the sign of the difference between members and others may turn during training.
"""

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning.membership.base import Rule, Score
from shortcut_lightning.membership.mask import kept
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.ranges import Count, Positive, SomeShare, Timestep


class SecMI(Score):
    """Minus the squared distance between x_s and psi, s = t_sec - interval.

    The two published forms differ in where the chain ends: t_sec 100 in the code for pixel models
    (11 calls), t_sec 150 in the one for latent models (16 calls, when none is made in vain).
    Latents are not clipped between steps, which the code for latent models leaves to the
    scheduler's `clip_sample`, false in Stable Diffusion.

    Args:
        t_sec: Last timestep of the chain.
        interval: Timesteps of one step of the chain.
        keep: Share of latent dimensions that count; below 1 see `mask.kept`.
    """

    needs_float32 = True  # a small difference of two predictions that are nearly equal

    def __init__(self, t_sec: Timestep = 100, interval: Count = 10, keep: SomeShare = 1.0) -> None:
        if t_sec % interval or t_sec < 2 * interval:
            raise ValueError(
                f"SecMI.t_sec is {t_sec} and SecMI.interval {interval}; t_sec must be a multiple "
                "of the interval, at least twice it."
            )
        self.t_sec = t_sec
        self.interval = interval
        self.keep = keep

    @property
    def queries(self) -> int:
        return self.t_sec // self.interval + 1

    def measure(self, probe: Probe) -> Tensor:
        squared = self.residual(probe).square() * kept(probe, self.keep)
        return -squared.flatten(1).sum(1, keepdim=True)

    def residual(self, probe: Probe) -> Tensor:
        """(B, C, h, w) x_s - psi."""
        start = x = probe.latents
        for step in range(0, self.t_sec, self.interval):
            start, x = x, _move(probe, x, step, step + self.interval)
        return start - _move(probe, x, self.t_sec, self.t_sec - self.interval)


class SecMINNs(SecMI):
    """SecMI's second form: a ResNet-18 that looks at |x_s - psi|.

    It is trained on the shadow model's members and hold-outs (the reference takes a fifth of the
    attacked model's). The last epoch is kept.

    Args:
        t_sec: Last timestep of the chain.
        interval: Timesteps of one step of the chain.
        epochs: Passes over the shadow images.
        learning_rate: Of SGD with momentum 0.9 and weight decay 5e-4.
        batch_size: Images of one step.
    """

    fitting = ("epochs", "learning_rate", "batch_size")
    subtractable = False
    refits_in_bootstrap = False

    def __init__(
        self,
        t_sec: Timestep = 100,
        interval: Count = 10,
        epochs: Count = 15,
        learning_rate: Positive = 1e-3,
        batch_size: Count = 128,
    ) -> None:
        super().__init__(t_sec, interval)
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    @property
    def columns(self) -> tuple[str, ...]:
        return ()

    def measure(self, probe: Probe) -> Tensor:
        """(B, 1 + 3 + CHW): minus the distance, the shape of the map, and the map."""
        residual = self.residual(probe).abs()
        total = -residual.square().flatten(1).sum(1, keepdim=True)
        shape = torch.tensor(residual.shape[1:], device=residual.device).expand(len(residual), 3)
        return torch.cat([total, shape, residual.flatten(1)], 1)

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        from shortcut_lightning.membership.networks import train_resnet

        return train_resnet(
            members,
            holdouts,
            seed,
            lambda parameters: torch.optim.SGD(
                parameters, lr=self.learning_rate, momentum=0.9, weight_decay=5e-4
            ),
            self.epochs,
            self.batch_size,
        )


def _move(probe: Probe, x: Tensor, start: int, stop: int) -> Tensor:
    """phi(x, start -> stop) with the images' captions."""
    backbone = probe.model.backbone
    if max(start, stop) >= backbone.num_train_timesteps:
        raise ValueError(
            f"The chain reaches timestep {max(start, stop)}; this model has 0 to "
            f"{backbone.num_train_timesteps - 1} (SecMI.t_sec, ReDiffuse.timestep)."
        )
    a, b = backbone.signal_and_sigma(probe.steps(start, 1))
    a_there, b_there = backbone.signal_and_sigma(probe.steps(stop, 1))
    epsilon = probe.epsilon(x, start, probe.caption)
    return a_there * ((x - b * epsilon) / a) + b_there * epsilon
