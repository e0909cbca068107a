"""The contract: what travels between the rooms of the house.

Images are float32 NCHW in [0, 1] everywhere; only `Backbone.encode` and `decode` know another
range. Budgets are in /255 of [0, 1]. Boxes are (x0, y0, x1, y1) in [0, 1], origin top left.
NamedTuples pass through Lightning's collation and device transfer unchanged.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from shortcut_lightning.safe_guidance import SafeGuidance


class Example(NamedTuple):
    """One image with its words, as folders, stages and datasets hand it on."""

    image: Tensor  # (3, H, W) float32 in [0, 1]
    prompt: str
    name: str  # the file's name, for messages, contact sheets and reports
    photograph: Path | None = None  # the larger file it was made from; None once a stage changed it
    purified: bool = False  # whether purifiers have worked on it


class Contrast(NamedTuple):
    """What the examples of a batch are not (`losses/contrast.py`)."""

    prompts: list[str]  # B prompts with the other examples' noise words
    weight: float
    margin: float


class TrainBatch(NamedTuple):
    """What a training step sees. With prior preservation the second half holds class images."""

    images: Tensor  # (B, 3, H, W) float32 in [0, 1]; (B, 0) when `moments` replace them
    prompts: list[str]  # B prompts as written by `prompts.py`
    is_prior: Tensor  # (B,) bool, True for class images
    draws: Tensor  # (B,) int64 number of the example in the run's stream; seeds its randomness
    loss_weights: Tensor | None = None  # (B, 1, h, w) on the latent grid, mean one per example
    moments: Tensor | None = None  # (B, 2, C, h, w) cached posterior mean and standard deviation
    contrast: Contrast | None = None


class PromptBatch(NamedTuple):
    """What a sampling step sees. One entry is one image to be made."""

    prompts: list[str]
    negative_prompts: list[str]
    seeds: Tensor  # (B,) int64, seed of each image's own generator
    ids: Tensor  # (B,) int64 position of the image in the evaluation, for gathering over ranks
    arm: str = "tuned"  # "tuned" or "base": the model after or before personalisation
    texts: Sequence[str] = ()  # B prompts before a method added to them; empty where none did
    safety: SafeGuidance | None = None  # how the negative prompts are avoided; None as usual
    size: tuple[int, int] | None = None  # (H, W) of the images in pixels; None for the model's own


class ConceptBox(NamedTuple):
    """One detected concept. `xyxy` is None when only the existence of the concept is known."""

    label: str
    score: float  # in [0, 1]
    xyxy: tuple[float, float, float, float] | None  # in [0, 1], x0 < x1, y0 < y1
