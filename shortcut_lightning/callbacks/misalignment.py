"""The shortcut made visible: does a CLIP still see the subject in what is trained on, or noise?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks.evaluation import SubjectData
from shortcut_lightning.callbacks.measures import EncoderCallback
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.files.images import round_to_8_bits
from shortcut_lightning.metrics.encoders import (
    ImageTextEncoder,
    PocketClip,
    image_features,
    text_features,
)
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.metrics.two_prompts import cosine, lead_of_second, share_of_second
from shortcut_lightning.report import plots
from shortcut_lightning.report.page import Section
from shortcut_lightning.report.scatter import scatter

_TITLES = {
    "p_noise": "Share of noise against the concept",
    "lead_noise": "Cosine to noise minus that to the concept",
    "p_pattern": "Share of a noisy pattern against the concept",
    "lead_pattern": "Cosine to a noisy pattern minus that to the concept",
    "cos_concept": "Cosine to the concept",
}


class Misalignment(EncoderCallback):
    """For the training images clean, with random noise of the attack's radius, perturbed (these two
    of the protected ones alone), and purified: `p_noise_<state>` and `p_pattern_<state>`, how much
    more noise than concept a CLIP sees in them (0 to 1), and `cos_concept_<state>` (arXiv
    2406.18944, section 3). Shares are the published form and saturate; `lead_noise_<state>` and
    `lead_pattern_<state>` are the differences of the cosines behind them.

    Args:
        encoder: A CLIP; one that knows both the concept and noise.
        concept: What the images should be seen as.
        noise: What protected ones are said to be seen as.
        pattern: The same in other words, because such scores hang on the wording.
        projection: How the map of embeddings is made; `tsne` exaggerates clusters.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder = PocketClip(),  # noqa: B008
        concept: str = "a photo of a person",
        noise: str = "a photo of noise",
        pattern: str = "a noisy pattern",
        projection: Literal["pca", "tsne"] = "pca",
    ) -> None:
        super().__init__(encoder)
        self.encoder: ImageTextEncoder = encoder
        self.concept = concept
        self.noise = noise
        self.pattern = pattern
        self.projection = projection
        # By subject: the features of each state, and the estimates made of them.
        self._seen: dict[str, tuple[dict[str, Tensor], dict[str, Estimate]]] = {}

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        if samples.arm != "tuned":
            return {}
        self._warnings = list(self._cautions(datamodule))
        found = {
            state: torch.cat(
                [image_features(self.encoder, image[None], samples.device) for image in images]
            )
            for state, images in states(datamodule).items()
        }
        sentences = [self.concept, self.noise, self.pattern]
        concept, noise, pattern = text_features(self.encoder, sentences, samples.device)
        estimates: dict[str, Estimate] = {}
        for state, features in found.items():
            for name, other in (("noise", noise), ("pattern", pattern)):
                pair = torch.stack([concept, other])
                estimates |= {
                    f"p_{name}_{state}": mean_estimate(share_of_second(features, pair)),
                    f"lead_{name}_{state}": mean_estimate(lead_of_second(features, pair)),
                }
            estimates[f"cos_concept_{state}"] = mean_estimate(cosine(features, concept))
        self._seen[self.of_whom] = found, estimates
        return estimates

    def show(self, samples: Mapping[str, Samples], trainer: Trainer, folder: Path) -> list[Section]:
        return [self._section(name, *seen) for name, seen in self._seen.items() if seen[0]]

    def _section(
        self, of_whom: str, found: Mapping[str, Tensor], estimates: Mapping[str, Estimate]
    ) -> Section:
        comparisons = [
            plots.Comparison(
                title,
                f"{name}, by {self.extractor}",
                [
                    plots.Measured(state, e.value, e.low, e.high, e.n)
                    for state in found
                    if (e := estimates[f"{name}_{state}"])
                ],
            )
            for name, title in _TITLES.items()
        ]
        html = plots.whiskers(comparisons)
        if sum(map(len, found.values())) >= 3:
            html += scatter(self._map(found), f"Embeddings by {self.extractor}, {self.projection}")
        lead = (
            f"How {self.extractor} sees the training images: '{self.concept}' against "
            f"'{self.noise}' and '{self.pattern}'. 'random' is the clean image with uniform noise "
            "of the attack's radius."
        )
        title = f"What the training images are seen as {of_whom}".rstrip()
        return Section(title, html, lead)

    def _map(self, found: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        rows = torch.nn.functional.normalize(torch.cat(list(found.values()))).numpy()
        if self.projection == "pca":
            from sklearn.decomposition import PCA

            points = PCA(2, random_state=0).fit_transform(rows)
        else:
            from sklearn.manifold import TSNE

            perplexity = min(30.0, (len(rows) - 1) / 3)
            points = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(rows)
        ends = np.cumsum([len(features) for features in found.values()])[:-1]
        return dict(zip(found, np.split(points, ends), strict=True))


def states(datamodule: Any) -> dict[str, list[Tensor]]:
    """The training images by what was done to them; states that the run does not have are left
    out. Noise and attack are those of the photographs that were given to the attack: it would look
    weaker than noise beside untouched ones."""
    given: list[Example] = getattr(datamodule, "given", [])
    perturbed: list[Example] = getattr(datamodule, "perturbed", [])
    trained_on: list[Example] = getattr(datamodule, "trained_on", [])
    radius = getattr(getattr(datamodule, "attack", None), "epsilon", 0.0)
    found = {"clean": [example.image for example in given]} if given else {}
    if given and radius > 0:
        protected: Sequence[int] = getattr(datamodule, "protected", range(len(given)))
        found["random"] = [_noisy(given[i].image, radius, i) for i in protected]
        found["perturbed"] = [perturbed[i].image for i in protected] if perturbed else []
    if getattr(datamodule, "purifiers", ()) and trained_on:
        found["purified"] = [example.image for example in trained_on]
    return {state: images for state, images in found.items() if images}


def _noisy(image: Tensor, radius: float, number: int) -> Tensor:
    chance = draws.generator(draws.run_seed(), "misalignment noise", number)
    noise = 2 * torch.rand(image.shape, generator=chance) - 1
    return round_to_8_bits(image + noise * radius / 255)
