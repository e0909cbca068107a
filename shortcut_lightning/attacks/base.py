"""An attack is a value: hyper-parameters in the constructor, the model at the call.

`Attack.__call__` does the bookkeeping once for all attacks, so that a subclass's `run` is the
method and nothing else. Whatever `run` returns, what leaves here is inside the ball, in [0, 1] and
on the 8-bit grid, and the model is as it was.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from shortcut_lightning.attacks.progress import Progress
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.doors import check_made, check_pictures, check_words
from shortcut_lightning.freezing import frozen
from shortcut_lightning.ranges import Levels, Ranged


class SoundnessWarning(UserWarning):
    """Why what survives an attack should not be called robust; reaches the report of a run."""


class Attack(Ranged, ABC):
    """Changes images so that a model trained on them fails.

    Constructor arguments are kept as attributes of the same names; they key the cache.

    Args:
        epsilon: L-infinity budget in /255 of [0, 1], whatever unit the attack was published in.

    Attributes:
        whole_set: Whether images of one call influence one another, as by a surrogate that is
            trained on them all; others may be changed a few at a time.
        progress: Of the call under way: `run` counts its steps with `progress.loop`, so that an
            interrupted call can go on.
    """

    whole_set: ClassVar[bool] = False
    progress = Progress()

    def __init__(self, epsilon: Annotated[float, Levels(0, 255)] = 11.0) -> None:
        self.epsilon = epsilon

    @final
    def __call__(
        self,
        images: Tensor,
        backbone: Backbone,
        prompts: Sequence[str],
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> Tensor:
        """The perturbed images, (N, 3, H, W) float32, 8-bit rounded.

        `images` are (N, 3, H, W) in [0, 1] and 8-bit rounded, on the backbone's device; `prompts`
        are their N plain captions. `generator` is a CPU generator and the only source of chance.
        The budget holds after rounding: a fractional `epsilon` is rounded down to whole levels.
        With the `progress` of an earlier call with the same arguments, it goes on from there.
        Raises ValueError for images or prompts of another form.
        """
        who = type(self).__name__
        if not hasattr(self, "epsilon"):
            raise ValueError(f"{who} has no epsilon: its __init__ must call super().__init__().")
        check_pictures(images, who)
        check_words(prompts, len(images), who)
        self.progress = progress or Progress()
        try:
            with frozen(backbone), torch.inference_mode(False), torch.enable_grad():
                clean = images.detach().clone()
                changed = self.run(clean.clone(), backbone, list(prompts), generator)
        finally:
            del self.progress
        check_made(changed, clean, who)
        if not changed.isfinite().all():
            raise ValueError(
                f"{who} made NaN or infinite pixels; lower its step size, or check "
                "that the model decodes finite images at this precision."
            )
        levels, original = changed.detach().float() * 255, (clean * 255).round()
        budget = math.floor(self.epsilon + 1e-6)
        levels = original + (levels - original).round().clamp(-budget, budget)
        return levels.clamp(0, 255) / 255

    @abstractmethod
    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """The method itself, with gradients on and the model frozen in eval mode.

        Need not project, clamp or round. May train the model: copy it first.
        """


class NoAttack(Attack):
    """Leaves the images alone."""

    def __init__(self) -> None:
        super().__init__(epsilon=0.0)

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Attack`."""
        return images
