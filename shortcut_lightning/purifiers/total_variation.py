"""Total-variation minimisation (arXiv 1711.00117, section 4.3): a few pixels are forgotten, and the
smoothest picture that explains the others takes the photograph's place."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.resampling import resized, shrunk
from shortcut_lightning.ranges import Count, NotNegative, ProperShare


class TotalVariation(Purifier):
    """Minimises ||(1 - X) * (Z - x)|| + `weight` TV(Z), X being Bernoulli(`dropped`) per value, at
    a shorter side of `side` pixels, and enlarges the result.

    The norm is Frobenius' over an image's three channels, TV the sum of absolute differences along
    both axes of each channel. (The published script takes a spectral norm and differences between
    colours by accident.) Solved by the primal-dual method of Chambolle and Pock (2011), whose two
    proximal steps are one line each.

    Args:
        weight: Of the total variation.
        dropped: Share of values that is forgotten.
        side: Shorter side to work at; images that are smaller keep their size.
        steps: Steps of the solver.
    """

    random = True
    differentiable = True  # the steps of the solver, unrolled

    def __init__(
        self,
        weight: NotNegative = 0.01,
        dropped: ProperShare = 0.02,
        side: Count = 64,
        steps: Count = 300,
    ) -> None:
        self.weight = weight
        self.dropped = dropped
        self.side = side
        self.steps = steps

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        small = shrunk(images, max(1.0, min(images.shape[-2:]) / self.side))
        kept = torch.rand(small.shape, generator=generator).to(images.device) >= self.dropped
        smooth = minimise(small, kept.float(), self.weight, self.steps)
        return resized(smooth, (images.shape[-2], images.shape[-1]))


def minimise(images: Tensor, kept: Tensor, weight: float, steps: int) -> Tensor:
    """argmin_Z ||kept * (Z - images)|| + weight TV(Z) for each image; (N, C, H, W), `kept` 0 or 1.

    Step sizes 0.35 satisfy tau sigma ||D||^2 < 1, for ||D||^2 <= 8.
    """
    tau = sigma = 0.35
    z = ahead = images
    down, right = torch.zeros_like(z[..., 1:, :]), torch.zeros_like(z[..., :, 1:])
    for _ in range(steps):
        down = (down + sigma * ahead.diff(dim=-2)).clamp(-weight, weight)
        right = (right + sigma * ahead.diff(dim=-1)).clamp(-weight, weight)
        moved = z - tau * adjoint(down, right)
        # The proximal step of a norm shortens the residual by tau, or to nothing.
        residual = kept * (moved - images)
        length = residual.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
        new = moved - residual * (tau / length).clamp(max=1)
        z, ahead = new, 2 * new - z
    return z


def adjoint(down: Tensor, right: Tensor) -> Tensor:
    """Transpose of the differences along rows and columns."""
    pad = torch.nn.functional.pad
    return (
        pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1)) + pad(right, (1, 0)) - pad(right, (0, 1))
    )
