"""Attacks that know the defence: expectation over transformation, through what purifies.

EOT (arXiv 1707.07397) averages over random defences; where a purifier hides its gradient, the
backward pass takes another for it, mostly the identity (BPDA, arXiv 1802.00420). Without both,
surviving an attack says little (arXiv 2002.08347).
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from shortcut_lightning.attacks import pictures
from shortcut_lightning.attacks.base import SoundnessWarning
from shortcut_lightning.attacks.convergence import convergence
from shortcut_lightning.attacks.denoising import eps_loss
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.pgd import Watch, gradient, random_start, sign_step
from shortcut_lightning.attacks.progress import Kept
from shortcut_lightning.backbones.base import Backbone, Conditioning
from shortcut_lightning.prompts import Decoupling, Prompts
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Budget, Count, Share, StepSize


class Adaptive(GradientAttack):
    """At each step the images are seen as they are or, by chance, purified; the gradient of the
    loss on what is seen moves them.

    Takes what `GradientAttack` takes, and:

    Args:
        steps: Number of steps. Warns when the loss still moves at the end.
        purifiers: The chain expected of the other side.
        identity: Chance of seeing the images unpurified. A little of it keeps the attack working
            against those who do not purify.
        samples: Draws averaged in a step; more than one against random purifiers.
        exact_gradients: Differentiate purifiers that can be; false differentiates the `stand_in` of
            all, where the graph of a diffusion purifier does not fit in memory.
        loss: `denoising` is stepped up; `latents` is the distance to a pattern's, stepped down.
        decoupling: Contrastive decoupling expected of the other side: its training prompts are then
            those of the loss, of purified pictures where a draw is purified.
        target: Image file of the pattern; empty for a built-in one.
        surrogate: The model attacked: `pocket`, a diffusers folder or a hub id; empty for the one
            that is going to be trained. Purifiers that use a model use this one.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 1.0,
        steps: Count = 100,
        purifiers: Sequence[Purifier] = (),
        identity: Share = 0.5,
        samples: Count = 1,
        exact_gradients: bool = True,
        loss: Literal["denoising", "latents"] = "denoising",
        decoupling: Decoupling = Decoupling(),  # noqa: B008
        target: str = "",
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        pictures.check(target)
        self.purifiers = purifiers
        self.identity = identity
        self.samples = samples
        self.exact_gradients = exact_gradients
        self.loss = loss
        self.decoupling = decoupling
        self.target = target

    @property
    def version(self) -> int:
        """1 where other pixels come out than before prompts of purified draws were their own; the
        cached ones of all other settings are still right."""
        rule = self.decoupling
        return int(rule.training and not rule.purified_too and bool(self.purifiers))

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        with torch.no_grad():
            plain, cleaned = self._said(model, prompts)
            goal = model.encode(pictures.target(self.target, images)).mean

        def loss(changed: Tensor) -> Tensor:
            seen, conditioning = changed, plain
            if torch.rand((), generator=generator).item() >= self.identity:
                seen = purified(
                    changed, self.purifiers, model, prompts, generator, self.exact_gradients
                )
                conditioning = cleaned
            return self._loss(seen, model, conditioning, goal, generator)

        at = Kept(random_start(images, self.epsilon, generator))
        with Watch("Adaptive", self.steps) as watch:
            for _ in self.progress.loop(self.steps, generator, at, watch):
                draws = [gradient(at.value, loss) for _ in range(self.samples)]
                slope = torch.stack([draw[0] for draw in draws]).mean(dim=0)
                watch.see(torch.stack([draw[1] for draw in draws]).mean(), slope)
                at.value = sign_step(
                    at.value,
                    images,
                    slope,
                    epsilon=self.epsilon,
                    size=self.step_size,
                    ascending=self.loss == "denoising",
                )
        for reason in convergence(watch.losses):
            warnings.warn(f"Adaptive: {reason}", SoundnessWarning, stacklevel=2)
        return at.value

    def _said(self, model: Backbone, prompts: list[str]) -> tuple[Conditioning, Conditioning]:
        """What the other side trains pictures on as they are, and behind the chain; an empty one
        purifies nothing."""
        said = Prompts("", decoupling=self.decoupling)
        texts = [
            [said.instance(prompt, purified=behind) for prompt in prompts]
            for behind in (False, bool(self.purifiers))
        ]
        raw = model.embed(texts[0])
        return raw, raw if texts[0] == texts[1] else model.embed(texts[1])

    def _loss(
        self,
        seen: Tensor,
        model: Backbone,
        conditioning: Conditioning,
        goal: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        if self.loss == "denoising":
            return eps_loss(model, seen, conditioning, generator)
        posterior = model.encode(seen)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(seen.device)
        return (posterior.sample(noise) - goal).square().sum(dim=(1, 2, 3)).mean()


def purified(
    images: Tensor,
    purifiers: Sequence[Purifier],
    model: Backbone,
    prompts: list[str],
    generator: torch.Generator,
    exact_gradients: bool = True,
) -> Tensor:
    """The images behind a chain, with a gradient to the images before it: of the purifier itself
    where it has a useful one and `exact_gradients` are wanted, else of its `stand_in`."""
    for purifier in purifiers:
        if purifier.differentiable and exact_gradients:
            images = purifier.run(images, model, prompts, generator).clamp(0, 1)
        else:
            cleaned = purifier(images.detach(), model, prompts, generator=generator)
            near = purifier.stand_in(images)
            images = near + (cleaned - near).detach()
    return images
