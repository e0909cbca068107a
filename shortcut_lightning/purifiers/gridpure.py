"""GrIDPure (arXiv 2312.00084): a little noise at a time, in overlapping windows of the picture."""

from collections.abc import Iterator

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.diffusion import Space, check, regenerated, space_of, timestep_of


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
        strength: float = 0.01,
        iterations: int = 20,
        gamma: float = 0.1,
        window: int = 0,
        pixel_model: str = "",
    ) -> None:
        check("GridPure", strength, 0)
        if iterations < 1 or not 0 <= gamma < 1 or window < 0:
            raise ValueError(
                f"GridPure's iterations is {iterations}, gamma {gamma} and window {window}; give "
                "at least one iteration, a share from 0 to below 1, and 0 pixels or more."
            )
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

        total, count = torch.zeros_like(images), torch.zeros_like(images)
        for place in windows(images.shape[-2], images.shape[-1], window):
            total[place] = total[place] + purified(images[place])
            count[place] += 1
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


def windows(height: int, width: int, side: int) -> Iterator[tuple]:
    """Index of each square of the given side; steps are half of it, the last touches the edge."""
    for top in starts(height, side):
        for left in starts(width, side):
            yield (..., slice(top, top + side), slice(left, left + side))


def starts(length: int, side: int) -> list[int]:
    """Where windows begin along one axis."""
    return sorted({*range(0, length - side + 1, side // 2), length - side})
