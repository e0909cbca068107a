"""LoHa and LoKr in files, in the keys of LyCORIS, which A1111, ComfyUI and kohya's scripts read."""

from collections.abc import Mapping

import torch
from torch import Tensor

# How a layer's tensors end.
NAMES = (
    *(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t1", "t2")),
)


def is_one(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a layer's tensors, by these names, are of one of the two kinds."""
    return any(name in tensors for name in NAMES)


def rank(tensors: Mapping[str, Tensor]) -> int:
    """The rank that an alpha is divided by; 0 where a LoKr has none, so that no alpha counts."""
    for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in tensors:
            return len(tensors[name])
    return 0


def product(tensors: Mapping[str, Tensor]) -> Tensor:
    """The change of a weight before scaling, float32: (out, in), (out, in, h, w) or, of a kernel
    that is taken as a row, (out, in * h * w). Raises KeyError or RuntimeError where matrices are
    missing or do not fit together."""
    found = {name: tensor.float() for name, tensor in tensors.items()}
    if "hada_w1_a" in found or "hada_w2_a" in found:
        return _factor(found, "hada_w1", "hada_t1") * _factor(found, "hada_w2", "hada_t2")
    left, right = _factor(found, "lokr_w1", "lokr_t1"), _factor(found, "lokr_w2", "lokr_t2")
    return torch.kron(left.view(*left.shape, *[1] * (right.dim() - left.dim())), right.contiguous())


def _factor(found: Mapping[str, Tensor], name: str, core: str) -> Tensor:
    """A matrix as it is, as a product of two, or with a small convolution between them (Tucker)."""
    if name in found:
        return found[name]
    a, b = found[f"{name}_a"], found[f"{name}_b"]
    if core in found:
        return torch.einsum("ijkl,jr,ip->prkl", found[core], b, a)
    return a @ b


def written(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The tensors of a layer as a file has them: with their scale in a matrix, and the alpha that
    stands for 1. Where alpha is not the rank, readers part: LyCORIS' own merging counts it twice,
    and none takes it where a LoKr has no rank."""
    first = next(name for name in ("hada_w1_a", "lokr_w1", "lokr_w1_a") if name in tensors)
    alpha = torch.tensor(float(rank(tensors) or 1))
    return {**tensors, first: tensors[first] * scale, "alpha": alpha}
