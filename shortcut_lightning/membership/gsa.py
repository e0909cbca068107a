"""GSA (arXiv 2308.06405): how hard an image would pull at each of a model's weights. White-box."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Conditioning
from shortcut_lightning.membership.base import Rule, Score
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.membership.trees import boosted_trees
from shortcut_lightning.ranges import Between, Count


class GSA(Score):
    """Trees over the gradient norms of every tensor of the denoiser.

    The reference standardises the features of each set by itself, members and hold-outs apart,
    which tells the classifier what set a row is from. Trees need no scaling; there is none here.

    Args:
        form: "one_backward" differentiates the mean loss over the timesteps (GSA_1);
            "every_timestep" each loss, and averages the norms (GSA_2).
        n_t: Number of timesteps, evenly spread: T / n - 1, ..., T - 1.
        trees: Boosted trees.
    """

    access = "white-box"
    asks_weights = True
    fitting = ("trees",)
    refits_in_bootstrap = False

    def __init__(
        self,
        form: Literal["one_backward", "every_timestep"] = "one_backward",
        n_t: Annotated[int, Between(1, 1000)] = 10,
        trees: Count = 200,
    ) -> None:
        self.form = form
        self.n_t = n_t
        self.trees = trees

    @property
    def queries(self) -> int:
        return self.n_t + (1 if self.form == "one_backward" else self.n_t)

    @property
    def columns(self) -> Sequence[str]:
        return ()

    def measure(self, probe: Probe) -> Tensor:
        """(B, 1 + tensors): minus the mean norm, then the norms."""
        weights = [each for each in probe.model.backbone.denoiser.parameters()]
        wanted = [each.requires_grad for each in weights]
        try:
            for each in weights:
                each.requires_grad_(True)
            with torch.enable_grad():
                norms = torch.stack([self._norms(probe, row, weights) for row in range(len(probe))])
        finally:
            for each, before in zip(weights, wanted, strict=True):
                each.requires_grad_(before)
        return torch.cat([-norms.mean(1, keepdim=True), norms], 1)

    def _norms(self, probe: Probe, row: int, weights: Sequence[Tensor]) -> Tensor:
        """(tensors,) for one image: a batch would give the gradients of all its images as one."""
        total = probe.model.backbone.num_train_timesteps
        steps = [total * (i + 1) // self.n_t - 1 for i in range(self.n_t)]
        one = slice(row, row + 1)
        text = probe.caption.conditioning.rows(one)
        noisy = torch.cat([probe.noisy(step)[one] for step in steps])
        noise = torch.cat([probe.noise_at(step)[one] for step in steps])
        times = torch.cat([probe.steps(step, 1) for step in steps])
        groups = [slice(0, self.n_t)]
        if self.form == "every_timestep":
            groups = [slice(i, i + 1) for i in range(self.n_t)]
        norms = []
        for group in groups:
            texts = Conditioning.stack([text] * (group.stop - group.start))
            predicted = probe.model.epsilon(noisy[group], times[group], texts)
            loss = (predicted - noise[group]).square().mean()
            gradients = torch.autograd.grad(loss, list(weights), allow_unused=True)
            zero = torch.zeros((), device=noisy.device)
            norms.append(torch.stack([zero if g is None else g.float().norm() for g in gradients]))
        return torch.stack(norms).mean(0)

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        rule = boosted_trees(members[:, 1:], holdouts[:, 1:], seed, trees=self.trees)
        return lambda features: rule(features[:, 1:])
