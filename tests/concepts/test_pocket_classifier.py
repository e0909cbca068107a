"""The concept classifier that comes with the package, on people and pictures it never saw.

python -m pytest tests/concepts/test_pocket_classifier.py
"""

import pytest
import torch
from torch import Tensor

from shortcut_lightning.concepts import GridClassifier
from shortcut_lightning.concepts.generators import ConceptGenerator, QRCode, Text, Watermark
from shortcut_lightning.concepts.geometry import overlap
from shortcut_lightning.data.implicit_concepts import pictures_of

CONCEPTS: list[ConceptGenerator] = [
    QRCode(edge=(0.4, 0.5), versions=(1, 2)),
    Watermark(placements=("centre", "corner"), opacity=(0.8, 0.95), size=(0.24, 0.26)),
    Text(lines=(1, 2), size=(0.14, 0.22)),
]


@pytest.fixture(scope="module")
def people() -> Tensor:
    """(40, 3, 64, 64) of the pocket's world, of another seed than the training's."""
    return torch.stack([example.image for example in pictures_of("pocket:901", 40, 64)])


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.label)
def test_concepts_are_recognised_and_placed(concept: ConceptGenerator, people: Tensor) -> None:
    made = [concept(image, 1, index) for index, image in enumerate(people)]
    detector = GridClassifier(labels=[concept.label])
    found = detector.detect(torch.stack([one.image for one in made]))
    assert sum(map(bool, found)) >= 34
    placed = [
        any(overlap(a.xyxy, b.xyxy) > 0.2 for a in one.boxes for b in boxes if a.xyxy and b.xyxy)
        for one, boxes in zip(made, found, strict=True)
        if boxes
    ]
    assert sum(placed) >= 0.7 * len(placed)


def test_clean_pictures_raise_few_alarms(people: Tensor) -> None:
    for concept in CONCEPTS:
        assert sum(map(bool, GridClassifier(labels=[concept.label]).detect(people))) <= 2
