"""What stands for a GPU refuses what a GPU refuses: python -m pytest tests/test_fake_gpu.py"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


def indexed_from_there(here: Tensor, there: Tensor) -> Tensor:
    return here[there.argmax(0)]


def written_from_here(here: Tensor, there: Tensor) -> None:
    there.clone()[torch.tensor([0, 1])] = here[:2]


@pytest.mark.parametrize(
    "mistake",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([there, here]),
        lambda here, there: nn.functional.linear(there, here),
        lambda here, there: there.clone().add_(here),
        lambda here, there: nn.Linear(4, 2)(there),
        lambda here, there: there.numpy(),
        lambda here, there: torch.randn(2, device=there.device, generator=torch.Generator()),
        indexed_from_there,
        written_from_here,
    ],
)
def test_what_is_in_the_wrong_place_shows_itself(
    mistake: Callable[[Tensor, Tensor], object], gpu: torch.device
) -> None:
    here = torch.rand(4, 4)
    with pytest.raises((RuntimeError, TypeError)):
        mistake(here, here.to(gpu))


def test_what_a_gpu_does_it_does(gpu: torch.device) -> None:
    here = torch.rand(4, 4)
    there = here.to(gpu)
    assert there.device == gpu
    assert torch.equal((there * torch.tensor(2.0)).cpu(), here * 2)  # a number from the CPU
    assert torch.equal(there[torch.tensor([1, 0])].cpu(), here[[1, 0]])  # CPU indices
    assert there[0].tolist() == here[0].tolist()
    assert there.sum().item() == here.sum().item()
    assert torch.arange(3, device=gpu).device == gpu
    layer = nn.Linear(4, 2).to(gpu)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(there).square().mean().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.device == gpu
    before = layer.weight.detach().cpu().clone()
    optimizer.step()
    assert not torch.equal(layer.weight.detach().cpu(), before)
