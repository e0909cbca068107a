"""Copies of class images with the noise of the photographs, for decoupling."""

from collections.abc import Sequence

from shortcut_lightning import draws
from shortcut_lightning.batch import Example
from shortcut_lightning.data.settings import NoisyClassImages
from shortcut_lightning.data.stages import Steps
from shortcut_lightning.data.transplant import transplant
from shortcut_lightning.purifiers.base import Purifier


def noisy_copies(
    wanted: NoisyClassImages,
    class_images: list[Example],
    given: list[Example],
    published: list[Example],
    purifiers: Sequence[Purifier],
    steps: Steps,
) -> list[Example]:
    """Class images as the attacks, by turns, and the transplant leave them, then purified.

    Args:
        wanted: What is done to how many.
        class_images: What copies are made of.
        given: The photographs as they were.
        published: The same as they are found.
        purifiers: What the photographs go through before training.
        steps: What the stages work with.
    """
    some = class_images[: wanted.count or None]
    noisy: list[Example] = []
    for number, attack in enumerate(wanted.attacks):
        noisy += steps.perturb(some[number :: len(wanted.attacks)], attack, f"copies-{number}")
    if wanted.transplant:
        noisy += transplant(
            some,
            published,
            steps.purify(published, wanted.transplant, given, "transplant"),
            limit=wanted.transplant_limit,
            step=steps.backbone.downsampling,
            seed=draws.run_seed(),
        )
    clean = {example.name: example for example in some}
    originals = [clean[example.name] for example in noisy]
    return steps.purify(noisy, purifiers, originals, "copies")
