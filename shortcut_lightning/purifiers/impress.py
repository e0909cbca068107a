"""IMPRESS (arXiv 2310.19248): a protected picture is one its autoencoder cannot reproduce; move it
to where it can, without changing how it looks."""

import math

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from tqdm import tqdm

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Count, NotNegative, Positive


class Impress(Purifier):
    """Minimises MSE(decode(encode(X)), X) + `alpha` max(1 - SSIM(X, x) - `budget`, 0) over X, by
    Adam with a cosine decay, from the picture plus noise. Pixels are in [-1, 1] inside.

    The paper measures how it looks by LPIPS, whose weights do not come with this package; SSIM
    needs none. Budgets of the two are not the same.

    Args:
        steps: Steps of Adam; published 3000.
        learning_rate: Of Adam, falling to 1e-5.
        noise: Standard deviation of the noise X starts with.
        alpha: Weight of the look.
        budget: Dissimilarity that costs nothing.
    """

    random = True

    def __init__(
        self,
        steps: Count = 3000,
        learning_rate: Positive = 0.01,
        noise: NotNegative = 0.1,
        alpha: NotNegative = 0.1,
        budget: NotNegative = 0.1,
    ) -> None:
        self.steps = steps
        self.learning_rate = learning_rate
        self.noise = noise
        self.alpha = alpha
        self.budget = budget

    @torch.enable_grad()
    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        given = images * 2 - 1
        noise = torch.randn(given.shape, generator=generator).to(given)
        moved = (given + self.noise * noise).detach().requires_grad_()
        optimizer = torch.optim.Adam([moved], self.learning_rate, eps=1e-5)
        last = 1e-5 / self.learning_rate
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda i: last + (1 - last) * (1 + math.cos(math.pi * i / self.steps)) / 2,
        )
        for _ in tqdm(range(self.steps), desc="IMPRESS", unit="step", mininterval=0.5):
            optimizer.zero_grad()
            pixels = (moved + 1) / 2
            again = backbone.decode(backbone.encode(pixels).mean)
            # Four times the error in [0, 1]: the paper's pixels are in [-1, 1].
            losses = 4 * (again - pixels).square().mean(dim=(1, 2, 3))
            beyond = (dissimilarity(pixels, images) - self.budget).clamp(min=0)
            # A sum over images, because Adam's eps is not small beside a mean's gradient: each is
            # as if it were alone.
            (losses + self.alpha * beyond).sum().backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                moved.clamp_(-1, 1)
        return (moved.detach() + 1) / 2


def dissimilarity(images: Tensor, others: Tensor) -> Tensor:
    """1 - SSIM of each image, (N,); images in [0, 1] of at least 8 px a side."""
    # The usual 11 px kernel, or the largest odd one that small pictures leave room for.
    side = min(11, min(images.shape[-2:]) // 2 * 2 - 1)
    similarity = structural_similarity_index_measure(
        images, others, data_range=1.0, gaussian_kernel=False, kernel_size=side, reduction="none"
    )
    assert isinstance(similarity, Tensor)
    return 1 - similarity
