"""The blocks of a denoiser: what comes and goes as one where not all of it is on a device, and what
is computed again in the backward pass where not all activations are kept."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from shortcut_lightning.backbones.adapter_kinds import compiled

_MARK = "computed_again"  # of a module, so that copies of it are marked too


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Those that its class in diffusers wants kept together; outer ones come before inner ones."""
    kinds = set(getattr(network, "_no_split_modules", None) or ())
    return (module for module in network.modules() if type(module).__name__ in kinds)


def at_once(network: nn.Module) -> int:
    """How many weights are on a device at most: a block that computes, the next one, which comes
    meanwhile, and what lies around all blocks."""
    found = list(blocks(network))
    kinds = {type(block) for block in found}
    inner = [
        count(block)
        for block in found
        if not any(type(below) in kinds for below in block.modules() if below is not block)
    ]
    return count(network) - sum(inner) + 2 * max(inner, default=0)


def choose(network: nn.Module, names: Sequence[str]) -> None:
    """Marks the modules in which `checkpointed` computes blocks again, with all that lies in them.

    Args:
        network: A denoiser of diffusers.
        names: Each a pattern for a module's whole name, or for its end after a dot.

    Raises ValueError for a name under which no block lies, and for what is no pattern.
    """
    for module in network.modules():
        setattr(module, _MARK, False)
    found = set(blocks(network))
    for name in names:
        pattern = compiled(name, "model.compute.checkpointed_blocks")
        under = {
            each
            for path, module in network.named_modules()
            if pattern.fullmatch(path)
            for each in module.modules()
        }
        if not under & found:
            known = [path for path, module in network.named_modules() if module in found]
            raise ValueError(
                f"model.compute.checkpointed_blocks: no block of the denoiser is called or lies "
                f"in '{name}'; it has {known[0]} and so on to {known[-1]}."
            )
        for module in under:
            setattr(module, _MARK, True)


def is_chosen(module: nn.Module) -> bool:
    """Whether `choose` marked it."""
    return bool(getattr(module, _MARK, False))


def checkpointed(module: nn.Module, *given: Any) -> Any:
    """A block's result, its activations computed again if it was chosen; what diffusers asks for
    as a `gradient_checkpointing_func`."""
    return checkpoint(module, *given, use_reentrant=False) if is_chosen(module) else module(*given)


def count(network: nn.Module) -> int:
    """How many weights it has."""
    return sum(parameter.numel() for parameter in network.parameters())
