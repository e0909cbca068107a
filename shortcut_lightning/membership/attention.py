"""How much of a generated image each word of its caption draws to itself (DAAM, arXiv 2210.04885).

Read off the cross-attention layers with hooks, so that the model's own attention code stays as fast
and as exact as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.backbones.text_attention import probabilities, text_layers
from shortcut_lightning.backbones.tokens import all_vectors
from shortcut_lightning.compiling import uncompiled


def word_weights(
    backbone: Backbone,
    captions: Sequence[str],
    *,
    seed: int,
    num_inference_steps: int,
    guidance_scale: float,
    batch_size: int = 8,
) -> list[list[float]]:
    """One weight for each whitespace-separated word of each caption.

    The mean attention over pixels, heads, layers and sampling steps, averaged over the word's
    tokens; words of punctuation alone weigh 0. Only the conditional half of a guided step counts.

    Raises ValueError for a backbone without a tokenizer or cross-attention layers.
    """
    tokenizer = getattr(backbone, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(
            f"{type(backbone).__name__} has no tokenizer, which the importance of words needs; use "
            "another reducer, such as SimpleClipping (audit.scores)."
        )
    weights: list[list[float]] = []
    for start in range(0, len(captions), batch_size):
        part = list(captions[start : start + batch_size])
        with uncompiled(), recorded(backbone.denoiser, len(part)) as total:
            backbone.sample(
                part,
                seeds=[seed] * len(part),
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
            )
        for caption, share in zip(part, total["share"], strict=True):
            weights.append(_by_word(caption, share, tokenizer))
    return weights


@contextmanager
def recorded(denoiser: nn.Module, size: int) -> Iterator[dict[str, Tensor]]:
    """Sums the attention of all cross-attention layers inside into `share`, (size, L).

    Of every batch the last `size` rows count: the conditional ones.
    """
    layers = [m for name, m in text_layers(denoiser).items() if name.endswith("attn2")]
    if not layers:
        raise ValueError(
            "The denoiser has no cross-attention layers named attn2, which the importance of words "
            "needs; use another reducer, such as SimpleClipping (audit.scores)."
        )
    total: dict[str, Tensor] = {}

    def look(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        share = probabilities(layer, hidden[-size:], text[-size:]).mean((1, 2))
        total["share"] = total.get("share", torch.zeros_like(share)) + share

    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        yield total
    finally:
        for hook in hooks:
            hook.remove()


def _by_word(caption: str, share: Tensor, tokenizer: Any) -> list[float]:
    weights, position = [], 1  # after the start token
    for word in caption.split():
        length = len(tokenizer(*all_vectors([word], tokenizer), add_special_tokens=False).input_ids)
        own = share[position : position + length]  # empty beyond the encoder's length
        spoken = any(letter.isalnum() for letter in word)
        weights.append(float(own.mean()) if spoken and len(own) else 0.0)
        position += length
    return weights
