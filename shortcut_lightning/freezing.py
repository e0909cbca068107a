"""Borrowing a model: it comes back exactly as it was lent, or parts of it are copied."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for parameters inside; mode, `requires_grad` and `grad` of every
    part are as before afterwards, also when an error passes through."""
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(each, each.requires_grad, each.grad) for each in model.parameters()]
    model.eval()
    for parameter, _, _ in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, wanted, gradient in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient


@contextmanager
def halved(network: nn.Module, enabled: bool) -> Iterator[None]:
    """Weights that autocast would turn to bfloat16 at every use, once for all uses inside.

    Those of linear layers and convolutions that are float32 and do not learn, half as much memory
    again; bits are those of autocast, and a GPU is spared a kernel for each weight and call.
    """
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    # DoRA takes norms of weights, in float32.
    enabled &= not any(len(getattr(m, "lora_magnitude_vector", ())) for m in network.modules())
    weights = [
        weight
        for layer in network.modules()
        if enabled and isinstance(layer, layers)
        for weight in layer.parameters(recurse=False)
        if weight.dtype == torch.float32 and not weight.requires_grad
    ]
    own = [weight.data for weight in weights]
    try:
        for weight in weights:
            weight.data = weight.data.bfloat16()
        yield
    finally:
        for weight, before in zip(weights, own, strict=True):
            weight.data = before


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model on `device` inside, and back where it was afterwards."""
    home = next(model.parameters()).device
    model.to(device)
    try:
        yield
    finally:
        model.to(home)


def copy_sharing(model: M, own: Sequence[nn.Parameter]) -> M:
    """A deep copy with its own copies of these weights; it shares all others with the model."""
    ids = {id(parameter) for parameter in own}
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if id(p) not in ids})
