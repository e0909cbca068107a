"""Pasting a concept into photographs on their way: the mark of whoever publishes them."""

from collections.abc import Sequence

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.concepts.generators import ConceptGenerator


def contaminate(
    examples: Sequence[Example], concept: ConceptGenerator | None, seed: int
) -> tuple[list[Example], list[list[ConceptBox]]]:
    """A share of the examples with the concept in them, and where it was put in each; without a
    concept all as they are. Image i's mark follows from (seed, i) alone."""
    shown, boxes = list(examples), [list[ConceptBox]() for _ in examples]
    if concept is None:
        return shown, boxes
    for index, example in enumerate(examples):
        if concept.chosen(seed, index):
            image, boxes[index] = concept(example.image, seed, index)
            shown[index] = example._replace(image=image, photograph=None)
    return shown, boxes
