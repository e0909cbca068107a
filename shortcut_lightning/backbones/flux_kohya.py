"""LoRAs of FLUX.1 in the names of kohya's sd-scripts: those of the original code, where a block's
queries, keys and values are one layer, in a single block with the first one of its perceptron.

A pair of matrices for each of diffusers' layers becomes one pair for all of them, which changes the
weights by the same; one pair for all is read as a pair for each, which share the narrow matrix.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

DOWN, UP, ALPHA, MAGNITUDE = "lora_down.weight", "lora_up.weight", "alpha", "dora_scale"
_PREFIX = "lora_unet_"
# Layers of a block -> diffusers' layers, in the order of their outputs.
_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}


def fused(network: Any, layers: Mapping[str, Tensors]) -> dict[str, Tensors]:
    """The LoRAs of diffusers' layers by kohya's names, at the same strength.

    Args:
        network: The transformer, with adapters on it or without.
        layers: By diffusers' name, each with a matrix `DOWN` (r, inputs), a matrix `UP`
            (outputs, r) and an `ALPHA`, which scales their product by alpha / r.

    Ranks and alphas of layers that become one add up. What has no LoRA gets rows of zeros.
    """
    names = _names(network)
    strange = layers.keys() - {member for members in names.values() for member in members}
    assert not strange, strange
    return {
        name: _one(network, members, layers)
        for name, members in names.items()
        if any(member in layers for member in members)
    }


def split(network: Any, tensors: Mapping[str, Tensor]) -> Tensors | None:
    """A file's tensors by diffusers' names, those of text encoders as they are.

    None where there is nothing in kohya's names, or something of the transformer that is no LoRA,
    with magnitudes or without, of one of its layers.
    """
    names, renamed = _names(network), False
    found: Tensors = {}
    for key, tensor in tensors.items():
        name, _, kind = key.partition(".")
        if not name.startswith(_PREFIX):
            found[key] = tensor
            continue
        members = names.get(name, ())
        parts = _parts(tensor, kind, _outputs(network, members))
        if not parts:
            return None
        found |= {f"transformer.{m}.{kind}": part for m, part in zip(members, parts, strict=True)}
        renamed = True
    return found if renamed else None


def _names(network: Any) -> dict[str, list[str]]:
    """kohya's names -> the names of diffusers' layers."""
    kinds = (
        ("transformer_blocks", "double_blocks", _DOUBLE),
        ("single_transformer_blocks", "single_blocks", _SINGLE),
    )
    return {
        f"{_PREFIX}{theirs}_{number}_{layer}": [f"{ours}.{number}.{each}" for each in members]
        for ours, theirs, block in kinds
        for number in range(len(getattr(network, ours)))
        for layer, members in block.items()
    }


def _outputs(network: Any, members: Sequence[str]) -> list[int]:
    return [network.get_submodule(member).out_features for member in members]


def _one(network: Any, members: Sequence[str], layers: Mapping[str, Tensors]) -> Tensors:
    own = [layers[member] for member in members if member in layers]
    down = torch.cat([each[DOWN] for each in own])
    alpha = sum(float(each[ALPHA]) for each in own)
    ups = []
    for member, outputs in zip(members, _outputs(network, members), strict=True):
        if member not in layers:
            ups.append(down.new_zeros(outputs, 0))
            continue
        up = layers[member][UP]
        # 1 where all are scaled alike.
        ups.append(up * (float(layers[member][ALPHA]) / up.shape[1] / (alpha / len(down))))
    return {DOWN: down, UP: torch.block_diag(*ups), ALPHA: torch.tensor(alpha)}


def _parts(tensor: Tensor, kind: str, outputs: Sequence[int]) -> Sequence[Tensor]:
    """What each of the layers gets of a tensor; nothing where it does not fit them."""
    if kind in (DOWN, ALPHA):
        return [tensor] * len(outputs)
    if kind not in (UP, MAGNITUDE) or tensor.dim() < 2 or len(tensor) != sum(outputs):
        return ()
    return tensor.split(list(outputs))
