"""Identity match: is the person (or thing) in the picture the one in the reference photographs?

The measure of Anti-DreamBooth (arXiv 2303.15433, section 5.1, "Identity Score Matching"): cosine
between a generated image's identity embedding and those of the references.
"""

from torch import Tensor
from torch.nn.functional import normalize

from shortcut_lightning.metrics.estimate import Estimate, mean_estimate


def identity_match(images: Tensor, references: Tensor) -> Estimate:
    """Embeddings (N, D) and (R, D) -> mean cosine to the references' mean direction, in [-1, 1].

    Each reference counts alike; their unit vectors are averaged and the average made a unit
    vector again, which is less noisy than comparing with single photographs.
    """
    centre = normalize(normalize(references, dim=-1).mean(dim=0), dim=-1)
    return mean_estimate(normalize(images, dim=-1) @ centre)
