"""Training examples: from a position of the stream to a row, from rows to a `TrainBatch`."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shortcut_lightning import draws
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import Example, TrainBatch
from shortcut_lightning.data.cache import Cache
from shortcut_lightning.data.stages import by_shape
from shortcut_lightning.data.stream import shuffled
from shortcut_lightning.freezing import frozen, on_device


class Row(NamedTuple):
    """One row of a batch; `moments` is (0,) where images are used, `image` is where moments are."""

    image: Tensor
    moments: Tensor
    prompt: str
    is_prior: bool
    draw: int


class TrainSet(Dataset[list[Row]]):
    """Position of the stream -> one instance row, and one class row with prior preservation.

    `instances` and `priors` hold their final prompts. Draws are 2p for the instance and 2p + 1 for
    the class image, so turning the prior on changes no draw of an instance.
    """

    def __init__(
        self,
        instances: Sequence[Example],
        priors: Sequence[Example],
        *,
        side: int,
        random_flip: bool,
        seed: int,
        moments: Sequence[Tensor] = (),  # of instances, then priors; empty to serve images
    ) -> None:
        self.instances = instances
        self.priors = priors
        self.side = side
        self.random_flip = random_flip
        self.seed = seed
        self.moments = moments

    def __len__(self) -> int:
        return len(self.instances)

    def __getitem__(self, position: int) -> list[Row]:
        index = shuffled(position, len(self.instances), self.seed, "instance order")
        rows = [self._row(self.instances[index], index, False, 2 * position)]
        if self.priors:
            index = shuffled(position, len(self.priors), self.seed, "class image order")
            rows.append(
                self._row(self.priors[index], len(self.instances) + index, True, 2 * position + 1)
            )
        return rows

    def _row(self, example: Example, index: int, is_prior: bool, draw: int) -> Row:
        if self.moments:
            return Row(torch.empty(0), self.moments[index], example.prompt, is_prior, draw)
        image = self._augment(example.image, draw)
        return Row(image, torch.empty(0), example.prompt, is_prior, draw)

    def _augment(self, image: Tensor, draw: int) -> Tensor:
        height, width = image.shape[-2:]
        if (height, width) != (self.side, self.side):
            chance = draws.generator(self.seed, "crop", draw)
            top = int(torch.randint(height - self.side + 1, (), generator=chance))
            left = int(torch.randint(width - self.side + 1, (), generator=chance))
            image = image[..., top : top + self.side, left : left + self.side]
        if self.random_flip:
            chance = draws.generator(self.seed, "flip", draw)
            if torch.rand((), generator=chance) < 0.5:
                image = image.flip(-1)
        return image


def collate(pairs: Sequence[Sequence[Row]]) -> TrainBatch:
    """Instance rows first, then class rows."""
    rows = [pair[0] for pair in pairs] + [row for pair in pairs for row in pair[1:]]
    moments = torch.stack([row.moments for row in rows])
    return TrainBatch(
        images=torch.stack([row.image for row in rows]),
        prompts=[row.prompt for row in rows],
        is_prior=torch.tensor([row.is_prior for row in rows]),
        draws=torch.tensor([row.draw for row in rows]),
        moments=moments if moments.numel() else None,
    )


def validation_batch(examples: Sequence[Example], first: int) -> TrainBatch:
    """Held-out images as a batch. Draws count down from -1, so they meet no draw of training, and
    are the same at every validation: two losses differ by the model alone."""
    return TrainBatch(
        images=torch.stack([example.image for example in examples]),
        prompts=[example.prompt for example in examples],
        is_prior=torch.zeros(len(examples), dtype=torch.bool),
        draws=-1 - torch.arange(first, first + len(examples)),
    )


def latent_moments(
    images: Sequence[Tensor],
    backbone: Backbone,
    cache: Cache,
    device: torch.device,
    chunk: int,
) -> list[Tensor]:
    """Posterior mean and standard deviation of each image, (2, C, h, w) float32 on the CPU."""

    def make() -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        with on_device(backbone, device), frozen(backbone), torch.no_grad():
            for group in by_shape(images):
                for start in range(0, len(group), chunk):
                    part = group[start : start + chunk]
                    posterior = backbone.encode(torch.stack([images[i] for i in part]).to(device))
                    both = torch.stack([posterior.mean, posterior.std], dim=1).float().cpu()
                    made |= {str(i): row for i, row in zip(part, both, strict=True)}
        return made

    entry = cache.get("latents", make, images=list(images), model=backbone.fingerprint())
    return [entry[str(index)] for index in range(len(images))]
