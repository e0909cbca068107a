"""Borrowing a model: it comes back exactly as it was lent, or parts of it are copied."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

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
def swapped(tensors: Sequence[Tensor], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What tensors hold is changed inside; what they held is kept and taken up again, also where
    changing ends in an error."""
    own = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = change(tensor.data)
        yield
    finally:
        for tensor, data in zip(tensors, own, strict=True):
            tensor.data = data


@contextmanager
def halved(network: nn.Module, enabled: bool) -> Iterator[None]:
    """Weights that autocast would turn to bfloat16 at every use, once for all uses inside.

    Those of linear layers and convolutions that are float32 and do not learn, half as much memory
    again; bits are those of autocast, and a GPU is spared a kernel for each weight and call.
    """
    parts = list(network.modules()) if enabled else []
    if any(len(getattr(part, "lora_magnitude_vector", ())) for part in parts):
        parts = []  # DoRA takes norms of weights, in float32
    weights = [
        weight
        for layer in parts
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        for weight in layer.parameters(recurse=False)
        if weight.dtype == torch.float32 and not weight.requires_grad
    ]
    with swapped(weights, Tensor.bfloat16):
        yield


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model on `device` inside, and back where it was afterwards."""
    # A backbone says where it computes: the first of its parts may stay on the CPU.
    home = getattr(model, "device", None) or next(model.parameters()).device
    model.to(device)
    try:
        yield
    finally:
        model.to(home)


def copy_sharing(model: M, own: Sequence[nn.Parameter]) -> M:
    """A deep copy with its own copies of these weights, to learn; it shares all others with the
    model.

    Raises ValueError where they are packed into whole numbers.
    """
    if not all(each.is_floating_point() for each in own):
        raise ValueError(
            "A copy of the model is to learn, and its weights are stored in 4 bits "
            "(model.compute.frozen_dtype nf4): let adapters learn (data.attack.training.method "
            "lora) where the method has them, name another model (data.attack.surrogate), or "
            "choose bf16."
        )
    ids = {id(parameter) for parameter in own}
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if id(p) not in ids})
