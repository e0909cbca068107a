"""An explicit contrast for decoupling: the noise words must explain what they are said about.

Seen as a classifier by its denoising errors (arXiv 2303.16203), a model should find that a
protected image fits its caption with the noise words better than without, and a class image the
reverse. Decoupling's own loss (arXiv 2406.18944) teaches each image with its right words alone and
leaves open whether the words made any difference. This term is no part of that paper.
"""

import torch
from torch import Tensor
from torch.nn import functional


def contrast_loss(right: Tensor, wrong: Tensor, margin: float) -> Tensor:
    """(B,) denoising errors with the right words and with the wrong ones, on the same noise ->
    scalar: margin * mean log(1 + exp((right - wrong) / margin)).

    That is the cross-entropy of a two-class classifier of temperature `margin`, in the errors' own
    units: its gradient is at most that of `right - wrong`, and fades once the right words are
    better by a few margins.
    """
    return margin * functional.softplus((right - wrong) / margin).mean()


def denoising_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, C, h, w) twice -> (B,) mean squared errors, float32."""
    return torch.square(prediction.float() - target.float()).mean(dim=(1, 2, 3))
