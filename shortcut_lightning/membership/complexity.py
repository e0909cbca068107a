"""A loss that allows for how hard the picture is (arXiv 2603.13421).

Of that paper the abstract and third parties' notes are known; what is ours is said below.
"""

import io
from collections.abc import Sequence
from typing import Annotated

import torch
from PIL import Image
from torch import Tensor

from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.ranges import Between, Timestep


class ComplexityCalibrated(Score):
    """Minus the squared mean error over several noises, divided by the picture's size in bytes.

    The mean of the errors is squared, not their squares averaged: what the noises have in common is
    the picture. As published T = |x - mean_n v(t x + (1 - t) e_n, t)|^2, v being data minus noise,
    at the middle of the path; that is the mean error plus the mean of the noises. Here the noises,
    which are known, are taken off, and errors are in noise space as everywhere in this room, which
    changes T by a constant factor. Harder pictures have larger errors whoever trained on them, and
    need more bytes. The published compression is not known to us; PNG's is used.

    Args:
        timestep: Where the error is taken. 350 is the middle of a straight path, s = 0.50; a
            family's own timestep is that of equal signal-to-noise ratio.
        draws: Noises.
    """

    def __init__(self, timestep: Timestep = 350, draws: Annotated[int, Between(2)] = 8) -> None:
        self.timestep = timestep
        self.draws = draws

    @property
    def queries(self) -> int:
        return self.draws

    @property
    def columns(self) -> Sequence[str]:
        return ("score", "error", "bytes")

    def measure(self, probe: Probe) -> Tensor:
        total = torch.zeros_like(probe.latents, dtype=torch.float32)
        for draw in range(self.draws):
            noise = probe.noise_at(self.timestep, draw)
            predicted = probe.epsilon(
                probe.noisy(self.timestep, draw), self.timestep, probe.caption
            )
            total += predicted - noise
        error = (total / self.draws).square().flatten(1).sum(1).cpu()
        sizes = torch.tensor([float(compressed(image)) for image in probe.images])
        return torch.stack([-error / sizes, -error, sizes], 1)


def compressed(image: Tensor) -> int:
    """Bytes of (3, H, W) in [0, 1] as a PNG file."""
    levels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.tell()
