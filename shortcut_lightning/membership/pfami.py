"""PFAMI (arXiv 2308.12143): a member sits in a dip of the loss, so moving it makes the loss rise.

Neighbours are centre crops resized back to full size.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.files.images import center_crop
from shortcut_lightning.membership.base import Rule, Score
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.ranges import Between, Count, Positive, ProperShare

STRENGTHS = tuple(float(x) for x in np.linspace(0.95, 0.7, 10))


class PFAMI(Score):
    """The mean over timesteps of how much the loss rises from the image to its neighbour.

    Two published forms: "relative", (L_crop - L) / L with strength 0.811 and t 0, 50, ..., 450, the
    authors' own; and "difference", L_crop - L with strength 0.825, t 1, 51, ..., 451 and one noise
    for all timesteps but another one for the neighbour, as CLiD's comparison ran it. Whether the
    authors' form shares the noise between image and neighbour is not known; here it does.

    Args:
        form: Which form.
        strength: Side of the crop as a share of the image's; 0 takes the form's own.
        n_t: Number of timesteps, 50 apart.
    """

    def __init__(
        self,
        form: Literal["relative", "difference"] = "relative",
        strength: ProperShare = 0.0,
        n_t: Annotated[int, Between(1, 20)] = 10,
    ) -> None:
        self.form = form
        self.strength = strength
        self.n_t = n_t

    @property
    def queries(self) -> int:
        return 2 * self.n_t

    def measure(self, probe: Probe) -> Tensor:
        difference = self.form == "difference"
        steps = [int(difference) + 50 * i for i in range(self.n_t)]
        strength = self.strength or (0.825 if difference else STRENGTHS[5])
        moved = neighbour(probe, strength)
        if difference:
            first = _losses(probe, probe.latents, steps, "PFAMI image")
            second = _losses(probe, moved, steps, "PFAMI neighbour")
            return (second - first).mean(1, keepdim=True)
        first = probe.losses(steps, [probe.caption]).mean((1, 3))
        second = _losses(probe, moved, steps, "")
        return ((second - first) / first).mean(1, keepdim=True)


class PFAMINN(Score):
    """PFAMI's second form: a ResNet-18 on the map of relative rises over timesteps and strengths.

    It is trained on the shadow model's members and hold-outs.

    Args:
        epochs: Passes over the shadow images, each one step with all of them.
        learning_rate: Of Adam.
    """

    fitting = ("epochs", "learning_rate")
    subtractable = False
    refits_in_bootstrap = False

    def __init__(self, epochs: Count = 110, learning_rate: Positive = 0.01) -> None:
        self.epochs = epochs
        self.learning_rate = learning_rate

    @property
    def queries(self) -> int:
        return 10 * (1 + len(STRENGTHS))

    @property
    def columns(self) -> Sequence[str]:
        return ()

    def measure(self, probe: Probe) -> Tensor:
        """(B, 1 + 3 + 100): the mean rise, the shape of the map, and the map."""
        steps = [50 * i for i in range(10)]
        first = probe.losses(steps, [probe.caption]).mean((1, 3))
        moved = [_losses(probe, neighbour(probe, s), steps, "") for s in STRENGTHS]
        rises = torch.stack([(losses - first) / first for losses in moved], 2)  # (B, t, strength)
        shape = torch.tensor([1, 10, len(STRENGTHS)], device=rises.device).expand(len(rises), 3)
        flat = rises.flatten(1)
        return torch.cat([flat.mean(1, keepdim=True), shape, flat], 1)

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        from shortcut_lightning.membership.networks import train_resnet

        return train_resnet(
            members,
            holdouts,
            seed,
            lambda parameters: torch.optim.Adam(parameters, lr=self.learning_rate),
            self.epochs,
            len(members) + len(holdouts),
        )


def neighbour(probe: Probe, strength: float) -> Tensor:
    """(B, C, h, w) latents of the images' middle, `strength` of their side, resized back."""
    side = probe.images.shape[-1]
    kept = max(1, int(strength * side))
    size = (side, side)
    crop = center_crop(probe.images, kept)
    resized = functional.interpolate(crop, size, mode="bilinear", antialias=True)
    return probe.encode(resized, f"crop {kept}")


def _losses(probe: Probe, latents: Tensor, steps: Sequence[int], draw: str) -> Tensor:
    """(B, T) losses of latents other than the chunk's own, with one noise named `draw` for all
    timesteps or, unnamed, the noise every timestep has."""
    columns = []
    for step in steps:
        noise = probe.noise(draw) if draw else probe.noise_at(step)
        predicted = probe.epsilon(probe.add_noise(latents, noise, step), step, probe.caption)
        columns.append((predicted - noise).square().flatten(1).mean(1))
    return torch.stack(columns, 1)
