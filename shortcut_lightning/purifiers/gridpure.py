"""GrIDPure (arXiv 2312.00084): a little noise at a time, in overlapping windows of the picture."""

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.diffusion import Space, regenerated, space_of, timestep_of
from shortcut_lightning.purifiers.windows import summed
from shortcut_lightning.ranges import Count, CountOrNone, ProperShare, SomeShare


class GridPure(Purifier):
    """Each iteration purifies windows that overlap by half, and one more patched together from the
    four corners; averages where they overlap, and keeps `gamma` of the image as it was.

    The official settings are strength 0.01, 20 iterations and gamma 0.1 on 512 px with windows of
    256 px and a pixel model.

    Args:
        strength: Share of the noise schedule that is walked each time.
        iterations: How often.
        gamma: Share of the image before the iteration.
        window: Side of a window in pixels; 0 for half the image's shorter side.
        pixel_model: Folder or hub id of an unconditional diffusers DDPM; empty for the run's own
            model, without a prompt.
    """

    random = True
    differentiable = True

    def __init__(
        self,
        strength: SomeShare = 0.01,
        iterations: Count = 20,
        gamma: ProperShare = 0.1,
        window: CountOrNone = 0,
        pixel_model: str = "",
    ) -> None:
        self.strength = strength
        self.iterations = iterations
        self.gamma = gamma
        self.window = window
        self.pixel_model = pixel_model

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        space = space_of(self.pixel_model, images, backbone, prompts)
        start = timestep_of(self.strength, space)
        shorter = min(images.shape[-2:])
        # A window must be a whole number of latents, and so must its quarters.
        unit = 2 * (1 if self.pixel_model else backbone.downsampling)
        window = max(unit, (self.window or shorter // 2) // unit * unit)
        if window > shorter:
            raise ValueError(
                f"GridPure's window is {window} px and the image's shorter side {shorter} px; give "
                "a smaller window (data.purifiers.window)."
            )
        for _ in range(self.iterations):
            merged = self._once(images, space, start, window, generator)
            images = ((1 - self.gamma) * merged + self.gamma * images).clamp(0, 1)
        return images

    def _once(
        self, images: Tensor, space: Space, start: int, window: int, generator: torch.Generator
    ) -> Tensor:
        def purified(part: Tensor) -> Tensor:
            return space.leave(regenerated(space, space.enter(part), start, generator))

        total, count = summed(images, window, purified)
        half = window // 2
        near, far = slice(None, half), slice(-half, None)
        corners = [(near, near), (near, far), (far, near), (far, far)]
        patch = torch.zeros_like(images[..., :window, :window])
        for rows, columns in corners:
            patch[..., rows, columns] = images[..., rows, columns]
        patch = purified(patch)
        for rows, columns in corners:
            total[..., rows, columns] = total[..., rows, columns] + patch[..., rows, columns]
            count[..., rows, columns] += 1
        return total / count
