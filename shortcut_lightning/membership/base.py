"""A membership score is a value: hyper-parameters in the constructor, the model at the call.

A score has two halves. `measure` asks one model about a chunk of image-caption pairs and returns a
few numbers for each, its features. `fit` turns features into one number, *high = member*; whatever
it tunes (scales, mixtures, timesteps, trees) it tunes on a shadow model whose members are known,
never on the model under audit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.doors import check_pictures, check_words
from shortcut_lightning.membership.engine import Engine
from shortcut_lightning.membership.pictures import picture
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.ranges import Ranged

Access = Literal["black-box", "grey-box", "white-box"]
Rule = Callable[[np.ndarray], np.ndarray]  # features (N, F) -> scores (N,), high = member


class Score(Ranged, ABC):
    """One way to ask a model whether it has seen an image with its caption.

    Constructor arguments are kept as attributes of the same names; they key files of results,
    together with the class that defines `measure`.
    """

    access: ClassVar[Access] = "grey-box"
    needs_captions: ClassVar[bool] = False
    # Constructor arguments that `fit` alone uses: with others, the same is measured.
    fitting: ClassVar[tuple[str, ...]] = ()
    # Whether bfloat16 would blur the numbers: then they are float32 whatever the audit says.
    needs_float32: ClassVar[bool] = False
    # Whether it differentiates by the denoiser's weights, which then have to be its own.
    asks_weights: ClassVar[bool] = False
    # Whether features of another model may be taken off: those of maps and sizes may not.
    subtractable: ClassVar[bool] = True
    # Whether a bootstrap can afford to fit the rule anew for each of its samples.
    refits_in_bootstrap: ClassVar[bool] = True

    @property
    def asks_anchor(self) -> bool:
        """Whether the numbers depend on the model that weighs words (`Engine.anchor`) too."""
        return False

    @property
    @abstractmethod
    def queries(self) -> int:
        """Calls of the denoiser for one image and model; backward passes count as one more."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the features; empty where their number depends on the model."""
        return ("score",)

    @abstractmethod
    def measure(self, probe: Probe) -> Tensor:
        """(B, F) float32 features of the pairs in the probe.

        Gradients are off unless turned on here, and the model is frozen.
        """

    def fit(self, members: np.ndarray, holdouts: np.ndarray, seed: int = 0) -> Rule:
        """A rule from the features of shadow members and hold-outs, each (N, F) float64.

        A score that does not override this is its own first column, high = member.
        """
        return first_column

    def oriented(self, features: np.ndarray) -> np.ndarray:
        """(N, F) features with every column high for members, as the score assumes it of them."""
        return features

    def calibrated(self, features: np.ndarray, base: np.ndarray) -> np.ndarray:
        """What is left of (N, F) features when those on a model that cannot know the members are
        taken into account: their difference."""
        return features - base

    @final
    def __call__(
        self,
        images: Tensor,
        captions: Sequence[str],
        backbone: Backbone,
        *,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Tensor:
        """(N, F) features of `images`, (N, 3, H, W) in [0, 1], with their N captions. Raises
        ValueError for images or captions of another form."""
        check_pictures(images, type(self).__name__)
        check_words(captions, len(images), type(self).__name__, "captions")
        pictures = [
            picture(f"image {number}", caption, image, backbone.resolution)
            for number, (image, caption) in enumerate(zip(images.cpu(), captions, strict=True))
        ]
        engine = Engine({"model": backbone}, seed=seed, batch_size=batch_size, progress=False)
        rows = engine.measure(pictures, {"score": self}, ["model"])["score"]["model"]
        return torch.from_numpy(np.stack([rows[each.row] for each in pictures]))


def first_column(features: np.ndarray) -> np.ndarray:
    """The rule of scores that have nothing to tune."""
    return features[:, 0]
