"""ReDiffuse (arXiv 2405.15173): a member survives being noised a little and denoised again.

Needs nothing but an interface that varies an image, hence black-box.
"""

import torch
from torch import Tensor

from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.membership.secmi import _move
from shortcut_lightning.ranges import Count, Timestep


class ReDiffuse(Score):
    """Structural similarity between the image and the mean of its reconstructions.

    Args:
        timestep: How far the image is noised.
        stride: Timesteps of one deterministic step back.
        variations: Reconstructions that are averaged.
    """

    access = "black-box"

    def __init__(self, timestep: Timestep = 50, stride: Count = 50, variations: Count = 1) -> None:
        if timestep < stride or timestep % stride:
            raise ValueError(
                f"ReDiffuse.timestep is {timestep} and stride {stride}; the timestep must be a "
                "multiple of the stride."
            )
        self.timestep = timestep
        self.stride = stride
        self.variations = variations

    @property
    def queries(self) -> int:
        return self.variations * (self.timestep // self.stride)

    def measure(self, probe: Probe) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim

        rebuilt = torch.zeros_like(probe.images)
        for number in range(self.variations):
            x = probe.noisy(self.timestep, number)
            for step in range(self.timestep, 0, -self.stride):
                x = _move(probe, x, step, step - self.stride)
            rows = x.split(probe.batch_size)
            rebuilt += torch.cat([probe.model.backbone.decode(part) for part in rows])
        rebuilt /= self.variations
        similarity = ssim(rebuilt, probe.images, data_range=1.0, reduction="none")
        assert isinstance(similarity, Tensor)
        return similarity.view(-1, 1)
