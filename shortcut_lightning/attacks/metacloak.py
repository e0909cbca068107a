"""MetaCloak (arXiv 2311.13127): against a pool of surrogates, through random transforms."""

import torch
from torch import Tensor

from shortcut_lightning.attacks.denoising import eps_loss
from shortcut_lightning.attacks.pgd import Watch, sign_pgd
from shortcut_lightning.attacks.progress import Kept
from shortcut_lightning.attacks.surrogate import Surrogate, SurrogateTraining
from shortcut_lightning.attacks.trained import TrainedSurrogateAttack
from shortcut_lightning.attacks.transforms import blur_and_flip
from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior
from shortcut_lightning.ranges import Budget, Count, StepSize


class MetaCloak(TrainedSurrogateAttack):
    """First trains a surrogate on the images and keeps its state now and then. Then `trials` times,
    from each state: the images take `steps` up its denoising error, seen through a random blur and
    flip, and the surrogate trains `advance_steps` on what they have become, `interval` /
    `advance_steps` times over.

    Takes what `TrainedSurrogateAttack` takes, and:

    Args:
        step_size: Size of a step in /255; published as a tenth of the budget.
        steps: Steps of the images between surrogate steps.
        trials: Passes over the pool of states.
        advance_steps: Surrogate steps after each of them.
        interval: Surrogate steps between two states of the pool, and from one state on.
        surrogate_steps: Surrogate steps from the first state to the last.
        random_flip: Whether the transform may mirror.
        unnormalised_surrogates: Feed surrogates instance images in [0, 255] where the model takes
            [-1, 1], as the published code does; class images it feeds rightly.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 1.1,
        steps: Count = 6,
        trials: Count = 4,
        advance_steps: Count = 2,
        interval: Count = 200,
        surrogate_steps: Count = 1000,
        random_flip: bool = True,
        unnormalised_surrogates: bool = False,
        surrogate: str = "",
        training: SurrogateTraining = SurrogateTraining(),  # noqa: B008
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            epsilon, step_size, steps, surrogate, training, bf16, gradient_checkpointing
        )
        if interval < advance_steps:
            raise ValueError(
                f"data.attack.interval is {interval}; it must be at least data.attack."
                f"advance_steps, which is {advance_steps}."
            )
        self.trials = trials
        self.advance_steps = advance_steps
        self.interval = interval
        self.surrogate_steps = surrogate_steps
        self.random_flip = random_flip
        self.unnormalised_surrogates = unnormalised_surrogates

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        surrogate = Surrogate(model, self.training, prompts, images, generator, self.progress)
        states = surrogate.train(
            self._seen(surrogate, images),
            self.surrogate_steps,
            keep=self.pool(),
            progress=self.progress,
        )
        rounds = self.interval // self.advance_steps
        total, at = self.trials * len(states) * rounds, Kept(images)
        with Watch("MetaCloak", total * self.steps) as watch:
            for number in self.progress.loop(total, generator, at, watch, surrogate):
                if number % rounds == 0:
                    surrogate.load(states[number // rounds % len(states)])
                at.value = self._cloak(at.value, images, surrogate, generator, watch)
                surrogate.train(self._seen(surrogate, at.value), self.advance_steps)
        return at.value

    def pool(self) -> set[int]:
        """Surrogate steps, counted from 0, after which a state is kept: the first, and the last of
        every interval."""
        return {0, *range(self.interval - 1, self.surrogate_steps, self.interval)}

    def _cloak(
        self,
        changed: Tensor,
        images: Tensor,
        surrogate: Surrogate,
        generator: torch.Generator,
        watch: Watch,
    ) -> Tensor:
        conditioning: Conditioning = surrogate.embed(surrogate.prompts)

        def loss(now: Tensor) -> Tensor:
            seen = blur_and_flip(now, generator, self.random_flip)
            return eps_loss(surrogate.model, seen, conditioning, generator)

        return sign_pgd(
            images,
            loss,
            epsilon=self.epsilon,
            step_sizes=[self.step_size] * self.steps,
            ascending=True,
            generator=generator,
            start=changed,
            watch=watch,
        )

    def _seen(self, surrogate: Surrogate, images: Tensor) -> Posterior:
        """What surrogates train on. The model maps x to 2x - 1, so this reaches it as 255 x."""
        return surrogate.encode((255 * images + 1) / 2 if self.unnormalised_surrogates else images)
