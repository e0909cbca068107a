"""Which of two sentences fits a picture better, by a CLIP: zero-shot, with two classes.

Published scores of this form differ in their sentences alone: CLIP_IQAC of MetaCloak (arXiv
2311.13127) has "a good photo of face" and "a bad photo of face"; the misalignment of protected
images (arXiv 2406.18944) asks for the concept or for noise. The softmax of a hundred cosines is
nearly 0 or 1 wherever two sentences are as far apart as the pocket CLIP's are; the difference of
the cosines themselves still tells such pictures apart.
"""

from torch import Tensor
from torch.nn.functional import normalize

SCALE = 100.0  # of cosines before the softmax, as CLIP's own


def share_of_second(images: Tensor, texts: Tensor) -> Tensor:
    """Features (N, D) of images and (2, D) of two sentences -> (N,) probabilities of the second.

    First minus second, as papers give it, is 1 - 2 times this.
    """
    cosines = normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    return (SCALE * cosines).softmax(dim=-1)[:, 1]


def lead_of_second(images: Tensor, texts: Tensor) -> Tensor:
    """As `share_of_second` -> (N,) differences of the cosines, second minus first, in [-2, 2]."""
    cosines = normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    return cosines[:, 1] - cosines[:, 0]


def cosine(images: Tensor, text: Tensor) -> Tensor:
    """Features (N, D) and (D,) -> (N,) cosines."""
    return normalize(images, dim=-1) @ normalize(text, dim=-1)
