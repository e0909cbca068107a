"""Scores as arXiv 2406.18944 defines them, so that tables can be compared, beside plain forms.

Each name says what it is. `thresholded_identity` is MetaCloak's rule (its `eval_score.py`): it
averages over only those references that are near, and calls an image with none a flat -1. Its
values are -1 or at least 1 - threshold, so it mixes "how alike" with "how often alike"; never
publish it without `plain_identity`.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

THRESHOLD = 0.40  # cosine distance of VGG-Face below which it calls two faces the same


def plain_identity(images: Tensor, references: Tensor) -> Tensor:
    """Embeddings (N, D) and (R, D) -> (N,) mean cosine to the references, in [-1, 1]."""
    return (normalize(images, dim=-1) @ normalize(references, dim=-1).T).mean(dim=1)


def thresholded_identity(
    images: Tensor, references: Tensor, threshold: float = THRESHOLD
) -> Tensor:
    """(N,): 1 - mean cosine distance to the references at most `threshold` away; -1 without any."""
    distances = 1 - normalize(images, dim=-1) @ normalize(references, dim=-1).T
    near = distances <= threshold
    mean = (distances * near).sum(dim=1) / near.sum(dim=1).clamp(min=1)
    return torch.where(near.any(dim=1), 1 - mean, torch.full_like(mean, -1.0))


def quality(perceptual: Tensor, clip_iqac: Tensor) -> Tensor:
    """Q: the mean of two scores in [-1, 1]. `perceptual` is (LIQE - 1) / 2 - 1 in the paper, LIQE
    being from 1 to 5; `clip_iqac` is the probability of "good" minus that of "bad"."""
    return (perceptual + clip_iqac) / 2
