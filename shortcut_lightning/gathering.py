"""Tensors of which each process holds a part (PyTorch's DTensor), and the same in one piece."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


@torch.no_grad()
def gathered(tensor: Tensor) -> Tensor:
    """All of a tensor, on the CPU where it was in parts; every process has to ask. Others come back
    as they are."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def divided(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor in parts as those of `like`, if that is in any."""
    if not isinstance(like, DTensor) or isinstance(whole, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)
