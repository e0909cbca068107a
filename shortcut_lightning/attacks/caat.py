"""CAAT (arXiv 2404.15081): one backward pass moves the images up and the attention layers down."""

import torch
from torch import Tensor, nn

from shortcut_lightning.attacks.denoising import eps_loss
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.pgd import Watch, sign_step
from shortcut_lightning.attacks.progress import Kept
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.backbones.text_attention import text_parameters
from shortcut_lightning.freezing import copy_sharing
from shortcut_lightning.ranges import Budget, Count, Positive, StepSize

# What Custom Diffusion trains of attention to text, and the same of the text's side where text and
# picture attend together.
KEYS_AND_VALUES = (".to_k.", ".to_v.", ".add_k_proj.", ".add_v_proj.")


class CAAT(GradientAttack):
    """At each step the images climb the denoising error and, by the same backward pass, the key and
    value projections of a copy's cross-attention descend it, as in Custom Diffusion (arXiv
    2212.04488), whose attention takes the first token's keys and values as given: the token that
    begins every prompt teaches them nothing.

    Takes what `GradientAttack` takes, and:

    Args:
        step_size: Size of a step in /255; published as 0.005 of images in [-1, 1].
        learning_rate: AdamW's, of the projections.
        random_flip: Mirror all images in half of the steps.
    """

    whole_set = True
    learns = True
    version = 2  # raise whenever other pixels come out for the same arguments

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 0.6375,
        steps: Count = 250,
        learning_rate: Positive = 1e-5,
        random_flip: bool = True,
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        self.learning_rate = learning_rate
        self.random_flip = random_flip

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        with torch.no_grad():
            conditioning = model.embed(prompts)
        reading = text_parameters(model.denoiser)
        names = [
            name
            for name, _ in model.denoiser.named_parameters()
            if name in reading and any(each in name for each in KEYS_AND_VALUES)
            if "lora_" not in name
        ]
        if not names:
            raise ValueError("CAAT needs a denoiser that attends to text; this one does not.")
        victim = copy_sharing(model, [model.denoiser.get_parameter(name) for name in names])
        learners = [victim.denoiser.get_parameter(name) for name in names]
        for parameter in learners:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        for name in names:
            projection = victim.denoiser.get_submodule(name.rpartition(".")[0])
            if name.endswith("weight"):
                projection.register_forward_hook(first_token_given)  # of the copy, gone with it
        optimizer = torch.optim.AdamW(learners, lr=self.learning_rate)
        at, attention = Kept(images), nn.ParameterList(learners)
        with Watch("CAAT", self.steps) as watch:
            for _ in self.progress.loop(self.steps, generator, at, attention, optimizer, watch):
                changed = at.value.detach().requires_grad_()
                flip = self.random_flip and torch.rand((), generator=generator) < 0.5
                seen = changed.flip(-1) if flip else changed
                loss = eps_loss(victim, seen, conditioning, generator)
                slope, *gradients = torch.autograd.grad(loss, [changed, *learners])
                for parameter, each in zip(learners, gradients, strict=True):
                    parameter.grad = each
                optimizer.step()
                watch.see(loss, slope)
                at.value = sign_step(
                    changed,
                    images,
                    slope,
                    epsilon=self.epsilon,
                    size=self.step_size,
                    ascending=True,
                )
        return at.value


def first_token_given(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """(B, L, D) keys or values of a text, without a gradient through those of its first token."""
    return torch.cat([output[:, :1].detach(), output[:, 1:]], 1)
