"""Tensors of which each process holds a part (PyTorch's DTensor), and the same in one piece."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


@torch.no_grad()
def gathered(tensor: Tensor) -> Tensor:
    """All of a tensor, on the CPU where it was in parts; every process has to ask. Others come back
    as they are."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def in_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors by name; of those that were in parts, in the first process alone."""
    found = {}
    for name, tensor in tensors.items():
        whole = gathered(tensor)
        if whole is tensor or torch.distributed.get_rank() == 0:
            found[name] = whole
    return found


@torch.no_grad()
def divided(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor in parts as those of `like`, if that is in any."""
    if not isinstance(like, DTensor) or isinstance(whole, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)
