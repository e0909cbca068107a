"""FSMG of Anti-DreamBooth (arXiv 2303.15433): climb the loss of a model trained on clean images."""

import torch
from torch import Tensor

from shortcut_lightning.attacks import pictures
from shortcut_lightning.attacks.pgd import sign_pgd
from shortcut_lightning.attacks.surrogate import Surrogate, SurrogateTraining
from shortcut_lightning.attacks.trained import TrainedSurrogateAttack, climbed
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.ranges import Budget, Count, CountOrNone, StepSize


class FSMG(TrainedSurrogateAttack):
    """Fine-tunes a surrogate by DreamBooth on clean images, then steps up its denoising error.

    Takes what `TrainedSurrogateAttack` takes, and:

    Args:
        step_size: Size of a step in /255; published as 0.005 of images in [-1, 1].
        surrogate_steps: DreamBooth steps before them.
        surrogate_batch_size: Clean images in each, with as many class images.
        target: Image file to lead towards at the same time (T-FSMG); empty for none.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 0.6375,
        steps: Count = 100,
        surrogate_steps: CountOrNone = 1000,
        surrogate_batch_size: Count = 2,
        target: str = "",
        surrogate: str = "",
        training: SurrogateTraining = SurrogateTraining(),  # noqa: B008
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            epsilon, step_size, steps, surrogate, training, bf16, gradient_checkpointing
        )
        pictures.check(target)
        self.surrogate_steps = surrogate_steps
        self.surrogate_batch_size = surrogate_batch_size
        self.target = target

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        victim = Surrogate(model, self.training, prompts, images, generator, self.progress)
        clean = victim.encode(self.training.clean_images(images))
        victim.train(clean, self.surrogate_steps, self.surrogate_batch_size, progress=self.progress)
        conditioning = victim.embed(prompts)
        loss = climbed(self.target, model, images, generator)
        return sign_pgd(
            images,
            lambda changed: loss(victim.model, changed, conditioning),
            epsilon=self.epsilon,
            step_sizes=[self.step_size] * self.steps,
            ascending=True,
            generator=generator,
            title="FSMG",
            progress=self.progress,
        )
