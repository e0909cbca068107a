"""Numbers that are none: what is raised wherever a loss, weights or pictures stop being finite."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class NotFinite(ArithmeticError):
    """NaN or infinity where a result would be made of it. No mistake in what was typed, so the
    program ends with code 1."""


def all_finite(tensors: "Iterable[Tensor]") -> bool:
    """Whether every number in them is; the device is waited for once."""
    found = [tensor.isfinite().all() for tensor in tensors]
    if not found:
        return True
    answer = found[0]
    for each in found[1:]:
        answer = answer & each.to(answer.device)
    return bool(answer)
