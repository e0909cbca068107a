"""What a U-Net keeps for its backward pass, counted by a forward pass without memory.

Levels of a U-Net differ in size and width, so there is no formula as for transformers. On the meta
device a network computes shapes alone, and autograd says which tensors it would keep; each storage
is counted once. Attention counts as fused kernels have it, without its matrix.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

# What gradient checkpointing in diffusers' U-Nets recomputes one at a time.
_RECOMPUTED = ("ResnetBlock2D", "BasicTransformerBlock")


def kept(
    network: Any,
    rows: int,
    side: int,
    words: int,
    half: bool,
    again: Callable[[nn.Module], bool],
) -> int:
    """Bytes.

    Args:
        network: A `UNet2DConditionModel` on the meta device; what requires no gradient is frozen.
        rows: Pictures in a batch.
        side: Of their latents.
        words: Of their prompts, as the text encoder has them.
        half: Whether activations are of 16 bits.
        again: Which blocks keep their input alone, and are computed again one at a time.
    """
    dtype = torch.bfloat16 if half else torch.float32
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    own = {each.untyped_storage()._cdata for each in network.state_dict().values()}
    seen: dict[int, Tensor] = {}  # by storage; held, or a storage's number would come again
    total = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in seen:
            seen[storage._cdata] = tensor
            total += storage.nbytes()
        return tensor

    inside: list[int] = []  # of each block that checkpointing computes again, what it keeps
    inputs = 0

    def enter(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal inputs
        inputs += given[0].nbytes
        inside.append(-total)

    def leave(*_: Any) -> None:
        inside[-1] += total

    hooks = []
    for module in network.modules():
        if type(module).__name__ in _RECOMPUTED and again(module):
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    with saved_tensors_hooks(note, lambda tensor: tensor), _fused_attention():
        _forward(network, rows, side, words, dtype)
    for hook in hooks:
        hook.remove()
    return total - sum(inside) + inputs + max(inside, default=0)


def _forward(network: Any, rows: int, side: int, words: int, dtype: torch.dtype) -> None:
    config = network.config

    def empty(*shape: int) -> Tensor:
        return torch.empty(rows, *shape, dtype=dtype, device="meta")

    added = None
    if config.addition_embed_type == "text_time":  # Stable Diffusion XL
        sizes = 6 * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - sizes
        added = {"text_embeds": empty(pooled), "time_ids": empty(6)}
    network(
        empty(config.in_channels, side, side),
        torch.zeros(rows, dtype=torch.long, device="meta"),
        empty(words, config.cross_attention_dim),
        added_cond_kwargs=added,
    )


class _Fused(torch.autograd.Function):
    """Keeps queries, keys, values, the result, and a number for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out


@contextmanager
def _fused_attention() -> Iterator[None]:
    def attend(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
        out: Tensor = _Fused.apply(query, key, value)
        return out

    with mock.patch.object(nn.functional, "scaled_dot_product_attention", attend):
        yield
