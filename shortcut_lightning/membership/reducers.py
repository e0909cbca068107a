"""Ways to take words away from a caption, for CLiD (arXiv 2405.14800, section 3.3)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.backbones.base import Conditioning
from shortcut_lightning.membership.attention import word_weights
from shortcut_lightning.membership.probe import Probe, Variant
from shortcut_lightning.ranges import Count, NotNegative, Ranged, SamplingSteps, Share


class Reducer(Ranged, ABC):
    """Gives poorer and poorer versions of the captions. The empty caption is added by CLiD."""

    asks_anchor: ClassVar[bool] = False  # whether they depend on `Engine.anchor`

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """One name for each version."""

    @abstractmethod
    def reduce(self, probe: Probe) -> list[Variant]:
        """One conditioning of B rows for each name."""


class NullOnly(Reducer):
    """No version between the whole caption and none: CLiD's equation 13, at 2 calls per noise."""

    @property
    def names(self) -> list[str]:
        return []

    def reduce(self, probe: Probe) -> list[Variant]:
        return []


class SimpleClipping(Reducer):
    """The caption cut into parts of equal length, by characters.

    Args:
        parts: Number of parts; published with 3.
    """

    def __init__(self, parts: Count = 3) -> None:
        self.parts = parts

    @property
    def names(self) -> list[str]:
        return [f"part {i + 1}" for i in range(self.parts)]

    def reduce(self, probe: Probe) -> list[Variant]:
        clipped = [clip(caption, self.parts) for caption in probe.chunk.captions]
        return [probe.text(column) for column in zip(*clipped, strict=True)]


class ImportantWords(Reducer):
    """The most important words replaced by the end-of-text word.

    A word's weight is its share of the cross-attention while the caption's image is generated
    (DAAM, arXiv 2210.04885), summed over the image. The weights come from one model for all models
    of an audit, since their captions must be equal: the base model where there is one. They cost
    `num_inference_steps` calls with guidance for every new caption, on top of `queries`.

    Args:
        rates: Share of the words that is taken away in each version.
        num_inference_steps: Sampling steps of the image the weights are read from.
        guidance_scale: Its guidance.
    """

    asks_anchor = True

    def __init__(
        self,
        rates: Sequence[Share] = (0.3, 0.5, 0.7),
        num_inference_steps: SamplingSteps = 50,
        guidance_scale: NotNegative = 7.5,
    ) -> None:
        self.rates = rates
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self._weights: dict[tuple[str, str], list[float]] = {}

    @property
    def names(self) -> list[str]:
        return [f"without {rate:.0%} of words" for rate in self.rates]

    def reduce(self, probe: Probe) -> list[Variant]:
        captions = probe.chunk.captions
        model = probe.anchor
        new = [c for c in dict.fromkeys(captions) if (model.name, c) not in self._weights]
        weights = word_weights(
            model.backbone,
            new,
            seed=probe.chunk.seed,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            batch_size=max(1, probe.batch_size // 2),
        )
        self._weights.update({(model.name, c): w for c, w in zip(new, weights, strict=True)})
        return [
            probe.text([without(c, self._weights[model.name, c], rate) for c in captions])
            for rate in self.rates
        ]


class GaussianNoise(Reducer):
    """Noise added to the caption's embedding.

    The published formula is not known; here sigma is scale x the embedding's standard deviation,
    what some families fill it up with not counted, and the noise comes from the seed and the
    image's content.

    Args:
        scales: One version for each.
    """

    def __init__(self, scales: Sequence[NotNegative] = (0.5, 0.7, 0.9)) -> None:
        self.scales = scales

    @property
    def names(self) -> list[str]:
        return [f"noise {scale:g}" for scale in self.scales]

    def reduce(self, probe: Probe) -> list[Variant]:
        whole = probe.caption
        hidden = whole.conditioning.hidden
        deviation = spread(whole.conditioning)
        versions = []
        for scale in self.scales:
            stage = f"membership caption noise {scale}"
            noise = draws.normal(hidden.shape[1:], probe.chunk.seed, stage, probe.chunk.keys)
            poorer = replace(whole.conditioning, hidden=hidden + scale * deviation * noise)
            versions.append(Variant(f"{whole.label}\0noise {scale}", poorer))
        return versions


def spread(text: Conditioning) -> Tensor:
    """(B, 1, 1) standard deviations of the embeddings, of text alone where a mask tells it."""
    if text.mask is None:
        return text.hidden.std(dim=(1, 2), keepdim=True)
    rows = zip(text.hidden, text.mask, strict=True)
    return torch.stack([row[kept].std() for row, kept in rows]).view(-1, 1, 1)


def clip(caption: str, parts: int = 3) -> list[str]:
    """c[: n/3], c[n/3 : 2n/3], c[2n/3 :] with rounded-down bounds."""
    bounds = [len(caption) * i // parts for i in range(parts + 1)]
    return [caption[a:b] for a, b in pairwise(bounds)]


def without(caption: str, weights: Sequence[float], rate: float) -> str:
    """The caption with its weightiest words replaced in place by `<|endoftext|>`.

    With n words the threshold is the r-th largest weight counted from zero, r = floor(rate n -
    0.01); all words at or above it go, hence r + 1 without ties.
    """
    words = caption.split()
    if not words:
        return caption
    place = max(0, int(torch.tensor(rate * len(words) - 0.01).floor()))
    threshold = sorted(weights, reverse=True)[min(place, len(words) - 1)]
    kept = [
        "<|endoftext|>" if weight >= threshold else word
        for word, weight in zip(words, weights, strict=True)
    ]
    return " ".join(kept)
