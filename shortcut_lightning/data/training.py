"""Training examples: from a position of the stream to a row, from rows to a `TrainBatch`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shortcut_lightning import draws
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import ConceptBox, Contrast, Example, TrainBatch
from shortcut_lightning.captions import Captions
from shortcut_lightning.concepts.erasing import Captioner
from shortcut_lightning.concepts.geometry import cropped, mirrored
from shortcut_lightning.data.bucket_order import BucketOrder
from shortcut_lightning.data.stream import shuffled
from shortcut_lightning.files.cache import Cache
from shortcut_lightning.files.code import code_behind
from shortcut_lightning.freezing import frozen, on_device
from shortcut_lightning.photographs import by_shape
from shortcut_lightning.prompts import Prompts


class Row(NamedTuple):
    """One row of a batch; `moments` is (0,) where images are used, `image` is where moments are."""

    image: Tensor
    moments: Tensor
    prompt: str
    is_prior: bool
    draw: int
    loss_weights: Tensor  # (1, h, w); (0,) where all places count alike


class Concepts(NamedTuple):
    """What training says and weighs about the concepts of its images."""

    boxes: Sequence[Sequence[ConceptBox]]  # of each instance
    captioner: Captioner
    downsampling: int  # side of an image over side of its latent


class Words(NamedTuple):
    """Captions that are another for each example."""

    captions: Captions
    finished: Callable[[Example], Example]  # with the methods' words, where there are no concepts


class View(NamedTuple):
    """The part of an image that an example shows."""

    top: int
    left: int
    flipped: bool


class TrainSet(Dataset[list[Row]]):
    """Position of the stream -> one instance row, and one class row with prior preservation.

    `instances` and `priors` hold their final prompts; with `concepts` or `words`, instances hold
    their plain captions, and the prompt is written here for the part of the image that is shown,
    and for the example. `rows` are the instances of one pass, where it is not over all alike.
    A `side` of 0 shows each image as it is; then the images of a batch, of which the stream has
    `batch` in a row, are of one shape. `weights`, in the order of `moments`, weigh the places of
    images that are shown whole.
    Draws are 2p for the instance and 2p + 1 for the class image, so turning the prior on changes no
    draw of an instance.
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
        weights: Sequence[Tensor] = (),  # (1, h, w) each; empty where all places count alike
        concepts: Concepts | None = None,
        words: Words | None = None,
        rows: Sequence[int] = (),
        batch: int = 1,
    ) -> None:
        self.instances = instances
        self.priors = priors
        self.side = side
        self.random_flip = random_flip
        self.seed = seed
        self.moments = moments
        self.weights = weights
        self.concepts = concepts
        self.words = words
        self.rows = rows or range(len(instances))
        shapes = [() if side else instances[index].image.shape for index in self.rows]
        self.order = BucketOrder(shapes, batch, seed)
        self.priors_of = {
            shape: [i for i, each in enumerate(priors) if side or each.image.shape == shape]
            for shape in shapes
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> list[Row]:
        return self.at(position, position)

    def at(self, place: int, number: int) -> list[Row]:
        """The rows of a place in this set's own stream, drawn as the example of that number."""
        bucket, place = self.order(place)
        members = self.order.members[bucket]
        index = self.rows[members[shuffled(place, len(members), self.seed, "instance order")]]
        rows = [self._row(self.instances[index], index, False, 2 * number)]
        if priors := self.priors_of[() if self.side else self.instances[index].image.shape]:
            index = priors[shuffled(place, len(priors), self.seed, "class image order")]
            rows.append(
                self._row(self.priors[index], len(self.instances) + index, True, 2 * number + 1)
            )
        return rows

    def _row(self, example: Example, index: int, is_prior: bool, draw: int) -> Row:
        view = self._view(example.image, draw)
        moments = self.moments[index] if self.moments else torch.empty(0)
        image = torch.empty(0) if self.moments else self._shown(example.image, view)
        if self.words is not None and not is_prior:
            example = self._said(self.words, example, draw)
        prompt = example.prompt
        weights = self.weights[index] if self.weights else torch.empty(0)
        if self.concepts is not None:
            found = [] if is_prior else self.concepts.boxes[index]
            boxes = shown_boxes(found, example.image, self.side, view)
            erasing = self.concepts.captioner.erasing
            if not is_prior:
                prompt = self._worded(self.concepts.captioner, prompt, boxes, draw)
            if erasing.reweights:
                sides = [self.side] * 2 if self.side else example.image.shape[-2:]
                weights = erasing.loss_weights(
                    boxes, *(each // self.concepts.downsampling for each in sides)
                )
        return Row(image, moments, prompt, is_prior, draw, weights)

    def _said(self, words: Words, example: Example, draw: int) -> Example:
        said = example._replace(prompt=words.captions.drawn(example.prompt, self.seed, draw))
        return said if self.concepts is not None else words.finished(said)

    def _view(self, image: Tensor, draw: int) -> View:
        """The crop and flip of a draw. Cached moments show the whole image as it is."""
        top = left = 0
        height, width = image.shape[-2:]
        if self.moments:
            return View(0, 0, False)
        if self.side and (height, width) != (self.side, self.side):
            chance = draws.generator(self.seed, "crop", draw)
            top = int(torch.randint(height - self.side + 1, (), generator=chance))
            left = int(torch.randint(width - self.side + 1, (), generator=chance))
        flipped = False
        if self.random_flip:
            chance = draws.generator(self.seed, "flip", draw)
            flipped = bool(torch.rand((), generator=chance) < 0.5)
        return View(top, left, flipped)

    def _shown(self, image: Tensor, view: View) -> Tensor:
        if self.side:
            rows, columns = (slice(start, start + self.side) for start in (view.top, view.left))
            image = image[..., rows, columns]
        return image.flip(-1) if view.flipped else image

    def _worded(
        self, captioner: Captioner, caption: str, boxes: Sequence[ConceptBox], draw: int
    ) -> str:
        drop = captioner.erasing.caption_drop
        if drop > 0:
            chance = draws.generator(self.seed, "caption drop", draw)
            if torch.rand((), generator=chance) < drop:
                caption = ""
        return captioner.instance(caption, boxes)


def shown_boxes(
    boxes: Sequence[ConceptBox], image: Tensor, side: int, view: View
) -> Sequence[ConceptBox]:
    """The boxes of an image as they lie in the part of `side` pixels that is shown; 0 for all."""
    height, width = image.shape[-2:]
    if side and (height, width) != (side, side):
        window = (
            view.left / width,
            view.top / height,
            (view.left + side) / width,
            (view.top + side) / height,
        )
        boxes = cropped(boxes, window)
    return mirrored(boxes) if view.flipped else boxes


def usual_boxes(
    boxes: Sequence[ConceptBox], image: Tensor, side: int, random_flip: bool
) -> list[Sequence[ConceptBox]]:
    """The boxes of an image as training shows them on average: in the middle of all crops, and
    where images are mirrored at random, once as they are and once mirrored."""
    height, width = image.shape[-2:]
    top, left = (height - side) // 2, (width - side) // 2
    flips = (False, True) if random_flip else (False,)
    return [shown_boxes(boxes, image, side, View(top, left, flipped)) for flipped in flips]


def collate(pairs: Sequence[Sequence[Row]], prompts: Prompts | None = None) -> TrainBatch:
    """Instance rows first, then class rows. `prompts` is asked for a contrast, where it has one."""
    rows = [pair[0] for pair in pairs] + [row for pair in pairs for row in pair[1:]]
    moments = torch.stack([row.moments for row in rows])
    weights = torch.stack([row.loss_weights for row in rows])
    return TrainBatch(
        images=torch.stack([row.image for row in rows]),
        prompts=[row.prompt for row in rows],
        is_prior=torch.tensor([row.is_prior for row in rows]),
        draws=torch.tensor([row.draw for row in rows]),
        loss_weights=weights if weights.numel() else None,
        moments=moments if moments.numel() else None,
        contrast=_contrast(rows, prompts) if prompts and prompts.decoupling.contrast > 0 else None,
    )


def _contrast(rows: Sequence[Row], prompts: Prompts) -> Contrast:
    said = [prompts.contrasted(row.prompt) for row in rows]
    return Contrast(said, prompts.decoupling.contrast, prompts.decoupling.contrast_margin)


def validation_batch(examples: Sequence[Example], numbers: Sequence[int]) -> TrainBatch:
    """The held-out images of these numbers as a batch. Draws count down from -1 by the number, so
    they meet no draw of training, and are the same at every validation, in whatever batch an image
    is: two losses differ by the model alone."""
    return TrainBatch(
        images=torch.stack([examples[number].image for number in numbers]),
        prompts=[examples[number].prompt for number in numbers],
        is_prior=torch.zeros(len(numbers), dtype=torch.bool),
        draws=-1 - torch.tensor(numbers),
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

    code = code_behind([type(backbone)])
    entry = cache.get("latents", make, images=list(images), model=backbone.fingerprint(), code=code)
    return [entry[str(index)] for index in range(len(images))]
