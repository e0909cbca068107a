"""ASPL of Anti-DreamBooth (arXiv 2303.15433): surrogate and perturbation learn by turns."""

import torch
from torch import Tensor

from shortcut_lightning.attacks import pictures
from shortcut_lightning.attacks.pgd import Watch, sign_pgd
from shortcut_lightning.attacks.progress import Kept
from shortcut_lightning.attacks.surrogate import Surrogate, SurrogateTraining
from shortcut_lightning.attacks.trained import Loss, TrainedSurrogateAttack, climbed
from shortcut_lightning.backbones.base import Backbone, Posterior
from shortcut_lightning.ranges import Budget, Count, CountOrNone, StepSize


class ASPL(TrainedSurrogateAttack):
    """Repeats `rounds` times: a copy of the surrogate trains `surrogate_steps` on clean images, the
    images take `steps` up its loss, the surrogate trains as long on what they have become.

    Takes what `TrainedSurrogateAttack` takes, and:

    Args:
        step_size: Size of a step in /255; published as 0.005 of images in [-1, 1].
        rounds: Number of rounds.
        surrogate_steps: DreamBooth steps in either half of a round.
        steps: Steps of the images in a round.
        target: Image file to lead towards at the same time (T-ASPL); empty for none.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 0.6375,
        rounds: Count = 50,
        surrogate_steps: CountOrNone = 3,
        steps: Count = 6,
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
        self.rounds = rounds
        self.surrogate_steps = surrogate_steps
        self.target = target

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        loss = climbed(self.target, model, images, generator)
        surrogate = Surrogate(model, self.training, prompts, images, generator, self.progress)
        return self.alternate(images, [surrogate], loss, generator, title="ASPL")

    def alternate(
        self,
        images: Tensor,
        surrogates: list[Surrogate],
        loss: Loss,
        generator: torch.Generator,
        title: str,
    ) -> Tensor:
        """The rounds, each of several surrogates starting at the same images; they end at the mean
        of where the surrogates led them (EASPL)."""
        private = self.training.clean_images(images)
        clean = [surrogate.encode(private) for surrogate in surrogates]
        at = Kept(images)
        with Watch(title, self.rounds * self.steps * len(surrogates)) as watch:
            for _ in self.progress.loop(self.rounds, generator, at, watch, *surrogates):
                ends = [
                    self._round(at.value, images, surrogate, known, loss, generator, watch)
                    for surrogate, known in zip(surrogates, clean, strict=True)
                ]
                at.value = torch.stack(ends).mean(dim=0) if len(ends) > 1 else ends[0]
        return at.value

    def _round(
        self,
        changed: Tensor,
        images: Tensor,
        surrogate: Surrogate,
        clean: Posterior,
        loss: Loss,
        generator: torch.Generator,
        watch: Watch,
    ) -> Tensor:
        before = surrogate.weights()
        surrogate.train(clean, self.surrogate_steps)
        conditioning = surrogate.embed(surrogate.prompts)
        changed = sign_pgd(
            images,
            lambda now: loss(surrogate.model, now, conditioning),
            epsilon=self.epsilon,
            step_sizes=[self.step_size] * self.steps,
            ascending=True,
            generator=generator,
            start=changed,
            watch=watch,
        )
        surrogate.load(before)
        surrogate.train(surrogate.encode(changed), self.surrogate_steps)
        return changed
