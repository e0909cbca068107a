"""Unified Concept Editing (arXiv 2308.14761): cross-attention is rewritten in closed form.

Every key and value projection W becomes the minimiser of

    sum_edit |W' c - W c*|^2 + sum_keep |W' c - W c|^2 + damping |W' - W|^2

over the text features c of the words to erase, c* of what they should mean, and words to keep
(eq. 7). A baseline: it changes what a word means, and an implicit concept is not called by words.

Joint attention (Stable Diffusion 3) has no projection of this kind: what its layers read has been
mixed with the picture before. There the two maps that do read the text's own features are
rewritten, those by which its states and its pooled state enter the transformer. The form is ours.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shortcut_lightning.backbones import Backbone
from shortcut_lightning.modules.dreambooth import DreamBooth
from shortcut_lightning.ranges import NotNegative, Positive


class UnifiedConceptEditing(DreamBooth):
    """An edited model to evaluate (`test`, `predict`); nothing is trained.

    Args:
        concepts: Words to erase.
        target: What they should mean; empty for the empty prompt.
        keep: Prompts whose meaning should stay.
        edit_scale: Weight of the edits.
        keep_scale: Weight of what is kept.
        damping: Weight of staying near the old projections; above 0.
        **dreambooth: What `DreamBooth` takes; `method` stays `full`, for the weights themselves are
            rewritten.

    Raises ValueError for another method, and for models and words that cannot be edited so.
    """

    def __init__(
        self,
        concepts: list[str] = [],  # noqa: B006
        target: str = "",
        keep: list[str] = [],  # noqa: B006
        edit_scale: NotNegative = 1.0,
        keep_scale: NotNegative = 1.0,
        damping: Positive = 0.1,
        **dreambooth: Any,
    ) -> None:
        if not concepts:
            raise ValueError("model.concepts is empty; name the words to erase.")
        if (method := dreambooth.get("method", "full")) != "full":
            raise ValueError(
                f"model.method is '{method}', and UnifiedConceptEditing rewrites the model's own "
                "weights: set model.method to 'full'."
            )
        super().__init__(**dreambooth)
        self._check_lengths(concepts, target)
        states = (
            *aligned_features(self.backbone, concepts, target),
            features(self.backbone, keep),
        )
        edits = [(each, states) for each in text_projections(self.backbone)]
        if (entry := pooled_projection(self.backbone)) is not None:
            edits.append((entry, pooled_features(self.backbone, concepts, target, keep)))
        for projection, read in edits:
            weight = projection.weight
            edited = edited_projection(weight.detach(), *read, edit_scale, keep_scale, damping)
            with torch.no_grad():
                weight.copy_(edited)

    def _check_lengths(self, concepts: Sequence[str], target: str) -> None:
        """Raises ValueError for words whose last one stands in no first row of the encoder."""
        room = self.backbone.prompt_length // self.backbone.prompt_chunks
        given = [*(("model.concepts", text) for text in concepts), ("model.target", target)]
        for key, text in given:
            if (count := self.backbone.count_tokens(text)) > room:
                raise ValueError(
                    f"{key}: '{text}' has {count} words of the vocabulary; UnifiedConceptEditing "
                    f"takes {room}."
                )

    def configure_optimizers(self) -> Any:
        """Raises ValueError: there is nothing to train."""
        raise ValueError("UnifiedConceptEditing edits without training: use `test` or `predict`.")


def edited_projection(
    weight: Tensor,
    old: Tensor,
    new: Tensor,
    kept: Tensor,
    edit_scale: float,
    keep_scale: float,
    damping: float,
) -> Tensor:
    """W (O, D), features (N, D), (N, D), (K, D) -> the minimiser of the sum above, (O, D)."""
    w, c, t, k = (tensor.double() for tensor in (weight, old, new, kept))
    eye = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
    left = damping * w + edit_scale * w @ t.T @ c + keep_scale * w @ k.T @ k
    right = damping * eye + edit_scale * c.T @ c + keep_scale * k.T @ k
    return torch.linalg.solve(right, left.T).T.to(weight.dtype)


def text_projections(backbone: Backbone) -> list[nn.Linear]:
    """What reads the text's features: key and value projections of the cross-attention, in the
    denoiser's order, or the one map by which text enters joint attention."""
    if not backbone.reads_clip_alone:
        raise ValueError(
            "UnifiedConceptEditing lays words on words at the places CLIP gives them, and this "
            "model reads its text by a T5 or a language model; use ErasedStableDiffusion."
        )
    entry = getattr(backbone.denoiser, "context_embedder", None)
    if isinstance(entry, nn.Linear):
        return [entry]
    found = [
        module
        for name, module in backbone.denoiser.named_modules()
        if name.endswith((".attn2.to_k", ".attn2.to_v")) and isinstance(module, nn.Linear)
    ]
    if not found:
        raise ValueError(
            "UnifiedConceptEditing rewrites diffusers' attn2 or context_embedder, and this model's "
            "denoiser has neither; use ErasedStableDiffusion with parts 'others'."
        )
    return found


def pooled_projection(backbone: Backbone) -> nn.Linear | None:
    """The map by which a text's pooled state enters joint attention; None in U-Nets, whose pooled
    text, where they have one, the published code leaves alone too."""
    if not hasattr(backbone.denoiser, "context_embedder"):
        return None
    embedder: Any = getattr(backbone.denoiser, "time_text_embed", None)
    return getattr(getattr(embedder, "text_embedder", None), "linear_1", None)


@torch.no_grad()
def pooled_features(
    backbone: Backbone, concepts: Sequence[str], target: str, keep: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled states (N, P) of the words to erase, of what they become, and (K, P) of what stays."""
    texts = (concepts, [target] * len(concepts), keep or [""])
    old, new, kept = (backbone.embed(each).pooled for each in texts)
    assert old is not None
    assert new is not None
    assert kept is not None
    return old, new, kept[: len(keep)]


@torch.no_grad()
def aligned_features(
    backbone: Backbone, concepts: Sequence[str], target: str
) -> tuple[Tensor, Tensor]:
    """Text features (N, D) of the words to erase and of what they become: each prompt from its last
    word on, so that last word stands to last word and end to end, as far as both reach."""
    old, new = [], []
    for concept in concepts:
        before, after = (backbone.embed([text]).hidden[0] for text in (concept, target))
        starts = [max(backbone.count_tokens(text), 1) for text in (concept, target)]
        length = min(len(before) - starts[0], len(after) - starts[1])
        old.append(before[starts[0] : starts[0] + length])
        new.append(after[starts[1] : starts[1] + length])
    return torch.cat(old), torch.cat(new)


@torch.no_grad()
def features(backbone: Backbone, prompts: Sequence[str]) -> Tensor:
    """Text features of all places of all prompts, (K, D); K is 0 without prompts."""
    width = backbone.embed([""]).hidden.shape[-1]
    if not prompts:
        return torch.zeros(0, width, device=backbone.embed([""]).hidden.device)
    return backbone.embed(prompts).hidden.flatten(0, 1)
