"""Attacks against a model that is fine-tuned on the way, and what their losses may add."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from shortcut_lightning.attacks import pictures
from shortcut_lightning.attacks.denoising import Denoising, denoise, eps_loss
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.surrogate import SurrogateTraining
from shortcut_lightning.backbones.base import Backbone, Conditioning
from shortcut_lightning.ranges import Budget, Count, StepSize

Loss = Callable[[Backbone, Tensor, Conditioning], Tensor]  # of the images, (N, 3, H, W)


class TrainedSurrogateAttack(GradientAttack):
    """A `GradientAttack` that trains the model it attacks.

    Args:
        epsilon: Budget in /255.
        step_size: Size of a step in /255.
        steps: Number of steps.
        surrogate: The model attacked: `pocket`, a diffusers folder or a hub id; empty for the one
            that is going to be trained.
        training: How it is fine-tuned.
        bf16: Compute in bfloat16 where that is safe; the weights afterwards are as they were.
        gradient_checkpointing: Recompute activations to save memory.
    """

    whole_set = True
    learns = True

    def __init__(
        self,
        epsilon: Budget,
        step_size: StepSize,
        steps: Count,
        surrogate: str,
        training: SurrogateTraining,
        bf16: bool,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        self.training = training

    @final
    @property
    def computes_in_bf16(self) -> bool:
        """Also where the weights are."""
        return self.bf16 or self.training.dtype == "bf16_ref"


def climbed(target: str, model: Backbone, images: Tensor, generator: torch.Generator) -> Loss:
    """What FSMG and ASPL climb: the denoising error or, with a `target` image file, T-FSMG's."""
    if not target:
        return lambda victim, changed, said: eps_loss(victim, changed, said, generator)
    goal = target_latents(target, model, images)
    return lambda victim, changed, said: targeted_loss(victim, changed, said, generator, goal)


def targeted_loss(
    model: Backbone,
    images: Tensor,
    conditioning: Conditioning,
    generator: torch.Generator,
    goal: Tensor,
) -> Tensor:
    """What T-FSMG and T-ASPL climb: the denoising error minus how far the next step of sampling is
    from the target's latents `goal`, (1, C, h, w), with the same noise at t - 1.

    Timesteps are at least 1, as t = 0 has nothing before it (published code takes the schedule's
    other end there), and the step is the posterior's mean, without its fresh noise.
    """
    timesteps = model.draw_timesteps(len(images), generator, least=1)
    made = denoise(model, images, conditioning, generator, timesteps)
    wanted = model.add_noise(goal.expand_as(made.latents), made.noise, made.timesteps - 1)
    return made.losses.mean() - (step_back(model, made) - wanted).square().mean()


def step_back(model: Backbone, made: Denoising) -> Tensor:
    """Mean of p(z_{t-1} | z_t); DDPM (arXiv 2006.11239), eq. 7, with the prediction's z_0, and the
    same of any Gaussian path."""
    signal, noise = model.powers(made.timesteps)
    signal_before, noise_before = model.powers(made.timesteps - 1)
    origin, _ = model.origin_and_noise(made.noisy, made.prediction, made.timesteps)
    of_origin = signal_before.sqrt() * model.path.fresh(signal, signal_before) / noise
    of_noisy = (signal / signal_before).sqrt() * noise_before / noise
    return of_origin * origin + of_noisy * made.noisy


def target_latents(path: str, model: Backbone, images: Tensor) -> Tensor:
    """Latents of a target image, (1, C, h, w)."""
    with torch.no_grad():
        return model.encode(pictures.read(path, images)).mean
