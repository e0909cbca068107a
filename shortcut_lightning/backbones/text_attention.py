"""How a denoiser looks at its text: the attention of picture to words, read off with hooks.

A U-Net has layers of cross-attention (`attn2`). In joint attention (Stable Diffusion 3) picture and
text stand in one row; what a place of the picture gives to the words is then less than one. Where
queries and keys are turned by their places on the way (FLUX, Qwen-Image), nothing is read.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

JOINT = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k", "to_add_out")


def text_layers(denoiser: nn.Module) -> dict[str, Any]:
    """Its attention layers that see text, by name, in order; empty where there is none."""
    return {
        name: module
        for name, module in denoiser.named_modules()
        if hasattr(module, "to_q") and (_is_joint(module) or _is_crossed(name, module))
    }


def text_parameters(denoiser: nn.Module) -> set[str]:
    """Names of the parameters of those layers; in joint attention, of the text's side alone."""
    return {
        f"{layer}.{name}"
        for layer, module in text_layers(denoiser).items()
        for name, _ in module.named_parameters()
        if not _is_joint(module) or name.startswith(JOINT)
    }


@contextmanager
def text_attention(denoiser: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, each call of such a layer adds its probabilities (B, heads, P, L): how much place p
    of the picture draws from word l. Gradients flow through them, for which all of the denoiser's
    activations are kept: where something is read, gradient checkpointing is off inside."""
    found: list[Tensor] = []

    def look(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("image_rotary_emb") is not None:
            return
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        found.append(probabilities(layer, hidden, text))

    layers = text_layers(denoiser).values()
    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        with _not_checkpointed(denoiser.modules() if layers else ()):
            yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _not_checkpointed(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The backward pass comes when the hooks are gone: a block that it computed again would not be
    the one that was computed."""
    flag = "gradient_checkpointing"
    at_work = [module for module in modules if getattr(module, flag, False)]
    for module in at_work:
        setattr(module, flag, False)
    try:
        yield
    finally:
        for module in at_work:
            setattr(module, flag, True)


def probabilities(layer: Any, hidden: Tensor, text: Tensor) -> Tensor:
    """(B, heads, P, L) softmax(q k / sqrt d) of picture to text, in float32."""
    if hidden.ndim == 4:
        hidden = hidden.flatten(2).transpose(1, 2)
    if not _is_joint(layer):
        return _scores(layer.to_q(hidden), layer.to_k(text), layer.heads).softmax(-1)
    parts = [_heads(each, layer.heads) for each in (layer.to_q(hidden), layer.to_k(hidden))]
    words = _heads(layer.add_k_proj(text), layer.heads)
    norms = (layer.norm_q, layer.norm_k)
    query, key = (norm(x) if norm else x for x, norm in zip(parts, norms, strict=True))
    words = layer.norm_added_k(words) if layer.norm_added_k else words
    both = torch.cat([key, words], dim=2).float()
    scores = query.float() @ both.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores.softmax(-1)[..., key.shape[2] :]


def _heads(projected: Tensor, heads: int) -> Tensor:
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def _scores(query: Tensor, key: Tensor, heads: int) -> Tensor:
    query, key = (_heads(part.float(), heads) for part in (query, key))
    return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def _is_joint(module: Any) -> bool:
    return getattr(module, "add_k_proj", None) is not None


def _is_crossed(name: str, module: Any) -> bool:
    # Layers of this name in transformers with dual attention see the picture alone.
    return name.endswith("attn2") and getattr(module, "is_cross_attention", True)
