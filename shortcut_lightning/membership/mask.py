"""Leave out the latent dimensions that hardly show in the picture (arXiv 2511.20592).

What a model remembers is in what can be seen; the rest adds noise to any score that sums over the
latent. The influence of dimension i is the i-th diagonal entry of J^T J, J the decoder's Jacobian,
estimated with a few random vectors v as the mean of (J^T v)_i squared (Hutchinson).
"""

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.membership.probe import Probe


def kept(probe: Probe, share: float, vectors: int = 8) -> Tensor:
    """(B, C, h, w): 1 for the `share` of each latent's dimensions with the most influence, else 0.

    Costs `vectors` backward passes of the decoder per image. Raises ValueError for a share that is
    not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"keep is {share}; it is the share of latent dimensions that count, above 0 and at "
            "most 1 (published: 0.6)."
        )
    if share == 1:
        return torch.ones_like(probe.latents)
    seen = influence(probe, vectors).flatten(1)
    count = max(1, round(share * seen.shape[1]))
    best = seen.topk(count, dim=1).indices
    return torch.zeros_like(seen).scatter_(1, best, 1.0).view_as(probe.latents)


def influence(probe: Probe, vectors: int) -> Tensor:
    """(B, C, h, w) estimated diagonal of J^T J of each image's latent."""
    parts = []
    for start in range(0, len(probe), probe.batch_size):
        rows = slice(start, start + probe.batch_size)
        total = torch.zeros_like(probe.latents[rows])
        for number in range(vectors):
            latents = probe.latents[rows].detach().clone().requires_grad_()
            with torch.enable_grad():
                pictures = probe.model.backbone.decode(latents)
                stage = f"membership influence {number}"
                keys = probe.chunk.keys[rows]
                noise = draws.normal(pictures.shape[1:], probe.chunk.seed, stage, keys)
                (pulled,) = torch.autograd.grad((pictures * noise).sum(), latents)
            total += pulled.square()
        parts.append(total / vectors)
    return torch.cat(parts)
