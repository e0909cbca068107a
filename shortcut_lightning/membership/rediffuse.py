"""ReDiffuse (arXiv 2405.15173): a member survives being noised a little and denoised again.

Needs nothing but an interface that varies an image, hence black-box.
"""

import torch
from torch import Tensor

from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.membership.secmi import _move


class ReDiffuse(Score):
    """Structural similarity between the image and the mean of its reconstructions.

    Args:
        timestep: How far the image is noised.
        stride: Timesteps of one deterministic step back.
        variations: Reconstructions that are averaged.
    """

    access = "black-box"

    def __init__(self, timestep: int = 50, stride: int = 50, variations: int = 1) -> None:
        if stride < 1 or timestep < stride or timestep % stride or variations < 1:
            raise ValueError(
                f"ReDiffuse.timestep is {timestep}, stride {stride}, variations {variations}; the "
                "timestep must be a multiple of the stride, and variations at least 1."
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
