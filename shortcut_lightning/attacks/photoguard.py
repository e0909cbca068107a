"""PhotoGuard's encoder attack (arXiv 2302.06588): make the encoder see something else."""

import torch
from torch import Tensor

from shortcut_lightning.attacks import pictures
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.attacks.pgd import random_start, sign_pgd
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.ranges import Budget, Count, StepSize


class PhotoGuardEncoder(Attack):
    """Moves each image so that the mean of its latent posterior comes close to a target's: that of
    the image `target`, or zero. Step i of n has size a - (a - a/100) i/n.

    Published as epsilon 7.65 and step size 2.55 (0.06 and 0.02 of images in [-1, 1]). The published
    random start may leave [0, 1] until the first step has been taken; here it is cut there at once,
    because the autoencoder has seen nothing else.

    Args:
        epsilon: Budget in /255.
        step_size: First step a in /255; steps shrink to a hundredth of it.
        steps: Number of steps n.
        target: Image file; empty for latents of zero.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 2.55,
        steps: Count = 1000,
        target: str = "",
    ) -> None:
        super().__init__(epsilon)
        self.step_size = step_size
        self.steps = steps
        self.target = target
        pictures.check(target)

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Attack`."""
        goal = torch.zeros((), device=images.device)
        if self.target:
            with torch.no_grad():
                goal = backbone.encode(pictures.read(self.target, images)).mean

        def distance(changed: Tensor) -> Tensor:
            difference = backbone.encode(changed).mean - goal
            return difference.flatten(1).norm(dim=1).mean()

        first, last = self.step_size, self.step_size / 100
        return sign_pgd(
            images,
            distance,
            epsilon=self.epsilon,
            step_sizes=[first - (first - last) * i / self.steps for i in range(self.steps)],
            ascending=False,
            start=random_start(images, self.epsilon, generator),
            generator=generator,
            title="PhotoGuard",
            progress=self.progress,
        )
