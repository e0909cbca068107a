"""EASPL of Anti-DreamBooth (arXiv 2303.15433): ASPL against several models at once."""

import torch
from torch import Tensor

from shortcut_lightning.attacks.aspl import ASPL
from shortcut_lightning.attacks.gradient import checkpointed, load_frozen
from shortcut_lightning.attacks.surrogate import Surrogate, SurrogateTraining
from shortcut_lightning.attacks.trained import climbed
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.ranges import Budget, Count, CountOrNone, StepSize


class EASPL(ASPL):
    """In each round every model runs a round of ASPL from the same images; their mean is the next
    start. A mean of points of the ball is in the ball.

    Takes what `ASPL` takes, and:

    Args:
        surrogates: The models attacked, each `pocket`, a diffusers folder, a hub id, or empty for
            the one that is going to be trained. All are held at once.
        training: How they are fine-tuned.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 0.6375,
        rounds: Count = 50,
        surrogate_steps: CountOrNone = 3,
        steps: Count = 6,
        surrogates: list[str] = [""],  # noqa: B006
        training: SurrogateTraining = SurrogateTraining(),  # noqa: B008
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            epsilon,
            step_size,
            rounds,
            surrogate_steps,
            steps,
            training=training,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
        )
        if not surrogates:
            raise ValueError("data.attack.surrogates is empty; name at least one model.")
        self.surrogates = surrogates

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        victims = []
        for name in self.surrogates:
            lent = load_frozen(name, images) if name else model
            with checkpointed(lent, self.gradient_checkpointing):  # a copy keeps the setting
                victims.append(
                    Surrogate(lent, self.training, prompts, images, generator, self.progress)
                )
        loss = climbed("", model, images, generator)
        return self.alternate(images, victims, loss, generator, title="EASPL")
