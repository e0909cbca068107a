"""Can members be told from hold-outs without any model? If so, an audit measures the split.

Each baseline is a logistic regression on something that has nothing to do with the model, judged by
cross-validation (arXiv 2406.16201 shows how often such baselines beat published attacks).
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.membership.pictures import Picture
from shortcut_lightning.membership.roc import auc, null_error
from shortcut_lightning.metrics.encoders import ImageEncoder, image_features

FOLDS = 5
RELABELLINGS = 25  # so that a deviation is known to a seventh
_RELABELLED = 250  # pictures of each set: the deviation falls with their number as an AUC's does
CHUNK = 64  # images in memory at a time


class Blind(NamedTuple):
    """The AUC of a baseline that sees no model; `error` is its deviation if nothing is there."""

    name: str
    auc: float
    error: float

    @property
    def tells(self) -> bool:
        """Whether the sets differ by more than chance.

        Only above one half: an AUC far below it comes from rows that the sets have in common, as
        where each caption stands once in either. The fold has learnt the other one's label then,
        which says nothing about a new picture, and such sets are matched best of all.
        """
        return self.auc - 0.5 > 3 * self.error


def blind_baselines(
    members: Sequence[Picture],
    holdouts: Sequence[Picture],
    seed: int = 0,
    encoder: ImageEncoder | None = None,
) -> list[Blind]:
    """Captions, image statistics, the encoder's embeddings and, for files, their metadata.

    A baseline with nothing to look at, such as one caption for all, is left out.
    """
    pictures = [*members, *holdouts]
    labels = np.repeat([1, 0], [len(members), len(holdouts)])
    if np.bincount(labels).min() < FOLDS:
        return []
    found: list[tuple[str, np.ndarray]] = []
    if len({each.caption for each in pictures}) > 1:
        words = bag_of_words([each.caption for each in pictures])
        found.append(("captions", words.toarray()))
    found.append(("image statistics", np.stack([image_statistics(p.pixels()) for p in pictures])))
    if encoder:
        found.append((f"embeddings ({encoder.name})", _embeddings(encoder, pictures)))
    if all(isinstance(each.source, Path) for each in pictures):
        sources = [each.source for each in pictures if isinstance(each.source, Path)]
        found.append(("file metadata", np.stack([file_metadata(s.read_bytes()) for s in sources])))
    return judged(found, labels, seed)


def judged(found: Sequence[tuple[str, Any]], labels: np.ndarray, seed: int) -> list[Blind]:
    """Named features, (N, F) arrays or sparse matrices, for labels of 1 (member) and 0."""
    return [
        Blind(name, cross_validated(features, labels, seed), _deviation(features, labels, seed))
        for name, features in found
        if _differ(features)
    ]


def _deviation(features: Any, labels: np.ndarray, seed: int) -> float:
    """Of the cross-validated AUC where labels mean nothing, from relabellings. It is larger than
    `null_error`, by a quarter to a half on usual features: folds learn from each other's rows."""
    rng = np.random.default_rng(seed)
    sets = [rng.permutation(np.flatnonzero(labels == kind))[:_RELABELLED] for kind in (1, 0)]
    some = features[np.sort(np.concatenate(sets))]
    given = np.repeat([1, 0], [len(rows) for rows in sets])
    found = [cross_validated(some, rng.permutation(given), seed) for _ in range(RELABELLINGS)]
    factor = np.sqrt(np.mean(np.square(np.array(found) - 0.5))) / null_error(*map(len, sets))
    return float(factor * null_error(*np.bincount(labels)[::-1]))


def _differ(features: Any) -> bool:
    """Whether any column has more than one value."""
    low, high = features.min(0), features.max(0)
    return bool((high != low).sum() > 0)


def cross_validated(features: Any, labels: np.ndarray, seed: int) -> float:
    """Mean AUC over stratified folds of a logistic regression on standardised features; sparse ones
    are scaled, but not centred."""
    from scipy.sparse import issparse
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    values = []
    for train, test in folds.split(features, labels):
        scaler = StandardScaler(with_mean=not issparse(features))
        model = make_pipeline(scaler, LogisticRegression(C=0.1, max_iter=1000))
        model.fit(features[train], labels[train])
        scores = model.decision_function(features[test])
        values.append(auc(scores[labels[test] == 1], scores[labels[test] == 0]))
    return float(np.mean(values))


def image_statistics(image: Tensor) -> np.ndarray:
    """(37,) of (3, H, W) in [0, 1]: colour, contrast, sharpness and noise, and a coarse picture."""
    extremes = image.flatten(1).kthvalue(max(1, image[0].numel() // 20), dim=1).values
    colour = [image.mean((1, 2)), image.std((1, 2)), extremes]
    across, down = image.diff(dim=2), image.diff(dim=1)
    edges = [across.square().mean((1, 2)).sqrt(), down.square().mean((1, 2)).sqrt()]
    fine = [across.diff(dim=2).square().mean((1, 2)).sqrt(), across.diff(dim=2).abs().amax((1, 2))]
    coarse = functional.interpolate(image[None].mean(1, keepdim=True), (4, 4), mode="area")
    parts = [*colour, *edges, *fine, coarse.flatten()]
    return np.concatenate([part.numpy() for part in parts])


def file_metadata(data: bytes) -> np.ndarray:
    """(7,) of a file: size on disk, size in pixels, kind, JPEG quantisation, EXIF."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        tables: dict[int, list[int]] = getattr(image, "quantization", {})
        strength = float(
            np.mean([np.mean(list(table)) for table in tables.values()] or [np.float64(0)])
        )
        has_exif, kind = float(bool(image.getexif())), float(sum(map(ord, image.format or "")))
    size = np.log(len(data))
    return np.array([size, size - np.log(width * height), width, height, kind, strength, has_exif])


def _embeddings(encoder: ImageEncoder, pictures: Sequence[Picture]) -> np.ndarray:
    device = torch.device("cpu")
    chunks = (pictures[i : i + CHUNK] for i in range(0, len(pictures), CHUNK))
    rows = [
        image_features(encoder, torch.stack([p.pixels() for p in chunk]), device)
        for chunk in chunks
    ]
    return torch.cat(rows).double().numpy()


def bag_of_words(captions: Sequence[str]) -> Any:
    """(N, up to 2002) sparse: words and pairs of words that occur, and two lengths."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(ngram_range=(1, 2), binary=True, max_features=2000, min_df=2)
    try:
        counts = words.fit_transform(captions)
    except ValueError:  # no word occurs twice
        counts = csr_matrix((len(captions), 1))
    lengths = [[len(text), len(text.split())] for text in captions]
    return hstack([counts, np.array(lengths)], format="csr", dtype=np.float64)
