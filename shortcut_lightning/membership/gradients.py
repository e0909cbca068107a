"""The two features of dataset-level inference (CDI, arXiv 2411.12858) that need gradients.

What is said here of the details the published description leaves open (where the loss is taken, how
noise is drawn) is our choice. Gradients are of the noisy latent, never of the weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.ranges import Count, InnerShare, Timestep


class GradientMasking(Score):
    """The loss in what matters most for it, once that was replaced by noise.

    The tenths of x_t with the largest |gradient| of the loss are exchanged for the noise itself;
    the feature is the squared error there. A model that knows the image fills the hole from the
    rest.

    Args:
        timesteps: Where the losses are taken.
        share: Share of the latent that is replaced.
    """

    access = "white-box"

    def __init__(
        self, timesteps: Sequence[Timestep] = tuple(range(0, 1000, 100)), share: InnerShare = 0.2
    ) -> None:
        self.timesteps = timesteps
        self.share = share

    @property
    def queries(self) -> int:
        return 3 * len(self.timesteps)

    @property
    def columns(self) -> Sequence[str]:
        return ("score", *(f"t{step}" for step in self.timesteps))

    def measure(self, probe: Probe) -> Tensor:
        """(B, 1 + timesteps): minus the mean, then minus each."""
        found = -torch.stack([self._masked_loss(probe, step) for step in self.timesteps], 1)
        return torch.cat([found.mean(1, keepdim=True), found], 1)

    def _masked_loss(self, probe: Probe, step: int) -> Tensor:
        noise = probe.noise_at(step)
        noisy = probe.noisy(step).detach().clone().requires_grad_()
        with torch.enable_grad():
            predicted = probe.epsilon(noisy, step, probe.caption)
            loss = (predicted - noise).square().flatten(1).mean(1).sum()
            (gradient,) = torch.autograd.grad(loss, noisy)
        size = gradient.abs().flatten(1)
        count = max(1, round(self.share * size.shape[1]))
        mask = torch.zeros_like(size).scatter_(1, size.topk(count).indices, 1.0).view_as(noise)
        filled = torch.where(mask > 0, noise, noisy.detach())
        error = (probe.epsilon(filled, step, probe.caption) - noise).square()
        return (error * mask).flatten(1).sum(1) / count


class NoiseOptimization(Score):
    """How far, and how low, the loss falls when x_t may change: little is left to gain for members.

    Args:
        timestep: Where the loss is taken.
        iterations: Of L-BFGS, image by image.
    """

    access = "white-box"

    def __init__(self, timestep: Timestep = 100, iterations: Count = 5) -> None:
        self.timestep = timestep
        self.iterations = iterations

    @property
    def queries(self) -> int:
        """At most; each evaluation counts for its gradient too."""
        return 2 * self._evaluations + 1

    @property
    def columns(self) -> Sequence[str]:
        return ("score", "distance")

    def measure(self, probe: Probe) -> Tensor:
        """(B, 2): minus the loss that was reached, and minus the length of the change."""
        return torch.stack([self._one(probe, row) for row in range(len(probe))])

    @property
    def _evaluations(self) -> int:
        return self.iterations * 5 // 4  # torch's own limit for L-BFGS

    def _one(self, probe: Probe, row: int) -> Tensor:
        rows = slice(row, row + 1)
        noisy, noise = probe.noisy(self.timestep)[rows], probe.noise_at(self.timestep)[rows]
        text = probe.caption.conditioning.rows(rows)
        times = probe.steps(self.timestep, 1)
        change = torch.zeros(noisy.numel(), device=noisy.device).requires_grad_()

        def loss() -> Tensor:
            predicted = probe.model.epsilon(noisy + change.view(noisy.shape), times, text)
            return (predicted - noise).square().mean()

        optimizer = torch.optim.LBFGS(
            [change], max_iter=self.iterations, max_eval=self._evaluations
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            with torch.enable_grad():
                value = loss()
            (change.grad,) = torch.autograd.grad(value, change)  # and none for the model
            return value

        optimizer.step(closure)
        with torch.no_grad():
            return -torch.stack([loss(), change.norm()])
