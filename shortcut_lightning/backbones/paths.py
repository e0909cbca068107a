"""From picture to noise and back: x_t = a x_0 + b eps, and what a denoiser may say about it.

Variance-preserving models have a^2 + b^2 = 1, rectified flows a + b = 1. Everything deterministic
(DDIM's steps and their inversion, SDEdit, purification by diffusion, SecMI's chain) is a function
of a and b alone and runs on both kinds.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Path(ABC):
    """The levels of a noise schedule. `table`, (T,) float32, is what it is computed from."""

    table: Tensor

    @abstractmethod
    def powers(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps, int64 of any shape -> a^2 and b^2, of that shape, on the table's device."""

    @abstractmethod
    def fresh(self, now: Tensor, then: Tensor) -> Tensor:
        """The variance that the step from level `then` to the noisier `now` adds, given a^2 of
        both: b_now^2 - (a_now / a_then)^2 b_then^2."""

    @property
    @abstractmethod
    def published(self) -> Tensor:
        """(T,) signal over signal and noise, in power, at the timesteps that methods name."""

    @abstractmethod
    def translated(self, published: int) -> int:
        """The timestep that a method published for Stable Diffusion's schedule means here: the one
        of equal signal-to-noise ratio."""


@dataclass(frozen=True)
class VariancePreserving(Path):
    """DDPM's schedules (arXiv 2006.11239): a^2 = abar, the cumulative product of alphas."""

    table: Tensor

    def powers(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        signal = self.table[timesteps]
        return signal, 1 - signal

    def fresh(self, now: Tensor, then: Tensor) -> Tensor:
        return 1 - now / then

    @property
    def published(self) -> Tensor:
        return self.table

    def translated(self, published: int) -> int:
        return published  # schedules of this kind differ little, and are published without care


@dataclass(frozen=True)
class RectifiedFlow(Path):
    """Straight paths (arXiv 2209.03003): b = s, a = 1 - s, with s rising over the table."""

    table: Tensor

    def powers(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        s = self.table[timesteps]
        return (1 - s).square(), s.square()

    def fresh(self, now: Tensor, then: Tensor) -> Tensor:
        noise_now, noise_then = ((1 - level.sqrt()).square() for level in (now, then))
        return noise_now - now / then * noise_then

    @property
    def published(self) -> Tensor:
        return stable_diffusions().float()

    def translated(self, published: int) -> int:
        return int((self.table.cpu() - stable_diffusions_share(published)).abs().argmin())


@cache
def stable_diffusions() -> Tensor:
    """(1000,) float64, the cumulative product of alphas of Stable Diffusion's schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def stable_diffusions_share(timestep: int) -> float:
    """s of the flow that shows a picture as Stable Diffusion shows it at a timestep from 0 to 999:
    b / (a + b)."""
    signal = stable_diffusions()[timestep]
    a, b = signal.sqrt(), (1 - signal).sqrt()
    return float(b / (a + b))


class Prediction(NamedTuple):
    """What a denoiser's output p means, at levels a and b."""

    name: str
    number: int  # part of what results are kept under
    snr_offset: float  # of Min-SNR's divisor (arXiv 2303.09556)

    def target(self, clean: Tensor, noise: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """What p should be: the noise, the velocity a eps - b x_0 (arXiv 2202.00512, app. D), or
        the flow's eps - x_0 (arXiv 2403.03206, eq. 12)."""
        if self.name == "epsilon":
            return noise
        return a * noise - b * clean if self.name == "v_prediction" else noise - clean

    def origin_and_noise(
        self, noisy: Tensor, output: Tensor, a: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x_0 and eps that an output stands for."""
        if self.name == "epsilon":
            return (noisy - b * output) / a, output
        if self.name == "v_prediction":
            return a * noisy - b * output, b * noisy + a * output
        return noisy - b * output, noisy + a * output


PREDICTIONS = {
    "epsilon": Prediction("epsilon", 0, 0.0),
    "v_prediction": Prediction("v_prediction", 1, 1.0),
    "flow": Prediction("flow", 2, 0.0),
}
