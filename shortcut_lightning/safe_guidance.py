"""Safe latent diffusion (arXiv 2211.05105): guidance that is bent away from words, and only there.

A negative prompt stands in the place of the empty one, at every element and from the first step.
Here the empty prompt stays, and what leads towards the unwanted words is taken off the guidance
where their prediction and the prompt's come near, with a momentum over the steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shortcut_lightning.ranges import Finite, NotNegative, ProperShare, Share, ranged


@ranged
@dataclass  # not frozen: it travels in batches, whose parts Lightning builds anew
class SafeGuidance:
    """How strongly; the defaults are the published setting *medium*.

    The paper's is stated on predicted noise. Here it is applied to what the denoiser predicts, as
    classifier-free guidance is: noise, or on a rectified flow (and with v-prediction) the velocity.

    Args:
        warmup: Share of the sampling steps that are left alone; published in steps of 50.
        scale: s of equation 6, how soon an element counts wholly.
        threshold: lambda of equation 6: elements at which the prompt's prediction exceeds the
            unwanted words' by as much are left alone.
        momentum_scale: s_m of equation 7.
        momentum: beta of equation 8.
    """

    warmup: Share = 0.2
    scale: NotNegative = 1000.0
    threshold: Finite = 0.01
    momentum_scale: Share = 0.3
    momentum: ProperShare = 0.4

    def begins(self, steps: int) -> int:
        """The first of so many steps that is changed, counted from 0."""
        return round(self.warmup * steps)


class SafeSteps:
    """Equations 3 to 8 along one sampling; `calls` of it are a step, one but with samplers of
    second order."""

    def __init__(self, setting: SafeGuidance, steps: int, calls: int = 1) -> None:
        self.setting = setting
        self.begin = setting.begins(steps) * calls
        self.calls = 0
        self.momentum: Tensor | None = None

    def __call__(self, without: Tensor, wanted: Tensor, unwanted: Tensor) -> Tensor:
        """Predictions (B, C, h, w) for the empty prompt, the prompt and the unwanted words -> the
        one that stands in the prompt's place in classifier-free guidance, where
        e_u + w (out - e_u) is then the paper's e_u + w (e_c - e_u - gamma)."""
        own = self.setting
        apart = wanted - unwanted
        weight = (own.scale * apart.abs()).clamp(max=1)
        weight = torch.where(apart >= own.threshold, torch.zeros_like(weight), weight)
        before = torch.zeros_like(wanted) if self.momentum is None else self.momentum
        gamma = weight * (unwanted - without) + own.momentum_scale * before
        self.momentum = own.momentum * before + (1 - own.momentum) * gamma
        self.calls += 1
        return wanted - gamma if self.calls > self.begin else wanted
