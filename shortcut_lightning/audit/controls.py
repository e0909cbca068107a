"""Checks without which an AUC means nothing: a model that cannot know, and captions that lie."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from shortcut_lightning import draws
from shortcut_lightning.audit.evaluator import Features, is_large
from shortcut_lightning.membership.pictures import Picture
from shortcut_lightning.membership.roc import Interval, auc, null_error, paired_error


class Gate(NamedTuple):
    """A score on a model that never saw the members; its AUC must be near one half."""

    auc: float
    error: float  # standard error of the AUC when there is nothing to find
    gain: Interval  # AUC on the target minus this one

    @property
    def passed(self) -> bool:
        """|AUC - 0.5| <= 3 standard errors."""
        return abs(self.auc - 0.5) <= 3 * self.error


class CaptionControl(NamedTuple):
    """The headline score on the same images with other captions."""

    name: str
    meaning: str
    auc: float
    error: float


def gate(base: Features, target: Features, resamples: int, seed: int) -> Gate:
    """From scores (N,) of the same members and hold-outs, by one rule, on both models."""
    error = null_error(len(base.members), len(base.holdouts))
    return Gate(auc(*base), error, _gain(base, target, resamples, seed))


def _gain(base: Features, target: Features, resamples: int, seed: int) -> Interval:
    """A paired bootstrap: the same images are drawn for both models, so that what lies in the
    pictures cancels. Of very many images the error of DeLong, which is the same to rounding."""
    if is_large(base):
        gain, error = auc(*target) - auc(*base), paired_error(target, base)
        return Interval(gain, gain - 1.959964 * error, gain + 1.959964 * error)
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(resamples):
        drawn = [rng.integers(len(each), size=len(each)) for each in base]
        before, after = (
            auc(*(each[rows] for each, rows in zip(scores, drawn, strict=True)))
            for scores in (base, target)
        )
        samples.append(after - before)
    low, high = np.quantile(samples, (0.025, 0.975))
    return Interval(auc(*target) - auc(*base), float(low), float(high))


CAPTION_CONTROLS = {
    "fixed": "one sentence for all images: what is left is known about the images alone",
    "shuffled": "captions change places within each set: right words, wrong images",
    "swapped": "captions change places between the sets: what is left does not come from them",
}


def other_captions(
    members: Sequence[Picture], holdouts: Sequence[Picture], fixed: str, seed: int
) -> dict[str, tuple[list[Picture], list[Picture]]]:
    """The two sets under each control. Without different captions there is nothing to control."""
    inside, outside = ([each.caption for each in pictures] for pictures in (members, holdouts))
    if len(set(inside + outside)) < 2:
        return {}
    return {
        "fixed": (_saying(members, [fixed]), _saying(holdouts, [fixed])),
        "shuffled": (
            _saying(members, _moved(inside, seed)),
            _saying(holdouts, _moved(outside, seed + 1)),
        ),
        "swapped": (
            _saying(members, _moved(outside, seed)),
            _saying(holdouts, _moved(inside, seed + 1)),
        ),
    }


def _saying(pictures: Sequence[Picture], captions: Sequence[str]) -> list[Picture]:
    """The captions in turn, from the start again when there are fewer than pictures."""
    return [each.saying(captions[i % len(captions)]) for i, each in enumerate(pictures)]


def _moved(captions: Sequence[str], seed: int) -> list[str]:
    """Every caption at another place, by one step along a random circle."""
    generator = draws.generator(seed, "membership captions", 0)
    order = torch.randperm(len(captions), generator=generator).tolist()
    moved = list(captions)
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        moved[there] = captions[here]
    return moved
