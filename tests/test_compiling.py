"""What is compiled, and that it is lent: python -m pytest tests/test_compiling.py"""

import pytest
import torch
from torch import nn

from shortcut_lightning.compiling import compiled


class Block(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.last = nn.Sequential(Block(), Block()), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(x))


class Regional(Network):
    _repeated_blocks = ("Block",)


@pytest.mark.parametrize("kind", [Network, Regional])
def test_repeated_blocks_are_compiled_and_given_back(
    kind: type[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def mark(forward, **_: object):
        def called(*args: object) -> object:
            calls.append(type(forward.__self__).__name__)
            return forward(*args)

        return called

    monkeypatch.setattr(torch, "compile", mark)
    network = kind()
    x = torch.ones(1, 2)
    with compiled(network):
        network(x)
    assert calls == (["Block", "Block"] if kind is Regional else ["Network"])
    with pytest.raises(RuntimeError, match="inside"), compiled(network):
        raise RuntimeError("inside")
    network(x)
    assert len(calls) == (2 if kind is Regional else 1)
