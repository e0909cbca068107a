"""A purifier is a value: hyper-parameters in the constructor, the model at the call.

It tries to undo what an attack added. Purifiers are used as a list, each working on what the one
before returned; an empty list leaves the images alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.doors import check_made, check_pictures, check_words
from shortcut_lightning.files.images import round_to_8_bits
from shortcut_lightning.freezing import frozen
from shortcut_lightning.ranges import Ranged


class Purifier(Ranged, ABC):
    """Cleans images. Constructor arguments are kept as attributes of the same names.

    A subclass declares two things that an attack on it must know. Against one that is `random`, a
    gradient or a success from a single draw says little. `differentiable` means that `run`, called
    with gradients on, passes useful ones to the images; anything else hides its gradient, and
    resisting attacks that need one proves nothing (arXiv 1802.00420).
    """

    random: ClassVar[bool] = False
    differentiable: ClassVar[bool] = False

    @final
    def __call__(
        self,
        images: Tensor,
        backbone: Backbone,
        prompts: Sequence[str],
        *,
        generator: torch.Generator,
    ) -> Tensor:
        """The cleaned images: same shape, float32 in [0, 1], 8-bit rounded.

        `images` are (N, 3, H, W) in [0, 1], on the backbone's device; `prompts` are their N plain
        captions. `generator` is a CPU generator and the only source of chance. The model is left as
        it was. Raises ValueError for images or prompts of another form.
        """
        who = type(self).__name__
        check_pictures(images, who)
        check_words(prompts, len(images), who)
        with frozen(backbone), torch.inference_mode(False), torch.no_grad():
            cleaned = self.run(images.detach().clone(), backbone, list(prompts), generator)
        check_made(cleaned, images, who)
        if not cleaned.isfinite().all():
            raise ValueError(f"{who} made NaN or infinite pixels.")
        return round_to_8_bits(cleaned.detach().float())

    @abstractmethod
    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """The method itself. Need not clamp or round; gradients are off unless turned on here."""

    def stand_in(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> the same: what an attack differentiates in place of a `run` that hides
        its gradient. Better than the images themselves is the part of `run` that does not."""
        return images
