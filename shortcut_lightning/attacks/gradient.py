"""What attacks that follow a model's gradient have in common: which model, at which cost."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from shortcut_lightning import backbones
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.freezing import halved
from shortcut_lightning.ranges import Budget, Count, StepSize


class GradientAttack(Attack):
    """An attack on a model it can look into. Subclasses write `perturb`.

    Args:
        epsilon: Budget in /255.
        step_size: Size of a step in /255.
        steps: Number of steps.
        surrogate: The model attacked: `pocket`, a diffusers folder or a hub id; empty for the one
            that is going to be trained.
        bf16: Compute in bfloat16 where that is safe; the weights afterwards are as they were.
        gradient_checkpointing: Recompute activations to save memory.
    """

    # Whether a copy of the model learns inside, which begins with the weights as they are.
    learns: ClassVar[bool] = False

    def __init__(
        self,
        epsilon: Budget,
        step_size: StepSize,
        steps: Count,
        surrogate: str,
        bf16: bool,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__(epsilon)
        self.step_size = step_size
        self.steps = steps
        self.surrogate = surrogate
        self.bf16 = bf16
        self.gradient_checkpointing = gradient_checkpointing

    @final
    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """Lends `perturb` the model that is attacked."""
        model = load_frozen(self.surrogate, images) if self.surrogate else backbone
        with (
            checkpointed(model, self.gradient_checkpointing),
            bfloat16(images, self.computes_in_bf16),
            halved(model.denoiser, self.computes_in_bf16 and not self.learns),
        ):
            return self.perturb(images, model, prompts, generator)

    @property
    def computes_in_bf16(self) -> bool:
        """Whether the model is run in bfloat16."""
        return self.bf16

    @abstractmethod
    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """The method, as `Attack.run`; `model` is frozen, and shared: copy what is to learn."""


def load_frozen(name: str, images: Tensor) -> Backbone:
    """A model by name, in eval mode, without gradients, where the images are.

    Raises ValueError as `backbones.load`, and for images of a shape that it does not take.
    """
    model = backbones.load(name, key="data.attack.surrogate")
    height, width = images.shape[-2:]
    beyond = 0 < model.longest < max(height, width)
    if beyond or height % model.multiple or width % model.multiple:
        most = f", at most {model.longest}" if model.longest else ""
        raise ValueError(
            f"data.attack.surrogate: '{name}' takes pictures with sides of a multiple of "
            f"{model.multiple} pixels{most}, and one here is {width} x {height}: crop or resize "
            "it, or name a surrogate of the run's own family."
        )
    return model.to(images.device).requires_grad_(False).eval()


@contextmanager
def bfloat16(images: Tensor, enabled: bool) -> Iterator[None]:
    """Autocast on the images' device. Without its cache of casted weights, which would go stale
    where a surrogate learns inside."""
    kind = images.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=enabled, cache_enabled=False):
        yield


@contextmanager
def checkpointed(model: Backbone, enabled: bool) -> Iterator[None]:
    """Gradient checkpointing inside, and as it was afterwards."""
    if not enabled:
        yield
        return
    flag = "gradient_checkpointing"
    before: list[tuple[nn.Module, bool]] = [
        (part, getattr(part, flag)) for part in model.modules() if hasattr(part, flag)
    ]
    model.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for part, value in before:
            setattr(part, flag, value)
