"""Copies of class images with the noise of the photographs, for decoupling."""

from collections.abc import Sequence

from shortcut_lightning import draws
from shortcut_lightning.attacks.base import Attack, NoAttack
from shortcut_lightning.batch import Example
from shortcut_lightning.data.settings import NoisyClassImages
from shortcut_lightning.data.stages import Steps, _changed
from shortcut_lightning.data.transplant import transplant
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.oracle import Oracle


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
        noisy += _perturbed(some[number :: len(wanted.attacks)], attack, number, steps)
    if wanted.transplant:
        noisy += transplant(
            some,
            published,
            _purified("transplant", published, wanted.transplant, given, steps),
            limit=wanted.transplant_limit,
            step=steps.backbone.downsampling,
            seed=draws.run_seed(),
        )
    clean = {example.name: example for example in some}
    originals = [clean[example.name] for example in noisy]
    return _purified("copies", noisy, purifiers, originals, steps)


# The stages of the photographs, under names of their own: by the same they would draw the very
# noise that the photographs are given, and what is said about noise would be said about that.


def _perturbed(examples: list[Example], attack: Attack, number: int, steps: Steps) -> list[Example]:
    if isinstance(attack, NoAttack):
        return examples
    size = len(examples) if attack.whole_set else steps.batch_size
    stage = f"perturb-copies-{number}"
    return _changed(stage, examples, attack, *steps[:3], size, steps.warn)


def _purified(
    name: str,
    examples: list[Example],
    purifiers: Sequence[Purifier],
    given: list[Example],
    steps: Steps,
) -> list[Example]:
    for number, purifier in enumerate(purifiers):
        if isinstance(purifier, Oracle):
            examples = list(given)
            continue
        examples = _changed(f"purify-{name}-{number}", examples, purifier, *steps[:4])
    return examples
