"""Identity match: is the person (or thing) in the picture the one in the reference photographs?

The measure of Anti-DreamBooth (arXiv 2303.15433, section 5.1, "Identity Score Matching"): cosine
between a generated image's identity embedding and those of the references.
"""

from torch import Tensor
from torch.nn.functional import normalize

from shortcut_lightning.metrics.estimate import Estimate, mean_estimate


def identities(images: Tensor, references: Tensor) -> Tensor:
    """Embeddings (N, D) and (R, D) -> cosines to the references' mean direction, (N,) in [-1, 1].

    Each reference counts alike; their unit vectors are averaged and the average made a unit
    vector again, which is less noisy than comparing with single photographs.
    """
    centre = normalize(normalize(references, dim=-1).mean(dim=0), dim=-1)
    return normalize(images, dim=-1) @ centre


def identity_match(images: Tensor, references: Tensor) -> Estimate:
    """The mean of `identities`."""
    return mean_estimate(identities(images, references))
