"""Factors as class numbers: the answers of the attribute classifier."""

from collections.abc import Sequence

import numpy as np

from shortcut_lightning.pocket import world
from shortcut_lightning.pocket.world import Identity, Scene

#: Attribute -> names of its classes, in the order of the classifier's logits.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "skin": world.SKINS,
    "hair": world.HAIRS,
    "style": world.STYLES,
    "beard": world.BEARDS,
    "noun": ("man", "woman"),
    "shirt": world.SHIRTS,
    "glasses": ("none", "glasses"),
    "expression": world.EXPRESSIONS,
    "background": world.BACKGROUNDS,
    "quality": world.QUALITIES[:3],
}
IGNORE = -1  # not to be seen in the picture: the hair of a bald head, the face of a noise pattern


def labels(who: Identity, where: Scene) -> np.ndarray:
    """Class numbers int8 (len(ATTRIBUTES),); a noise pattern is "noisy" and nothing else."""
    named = {
        "skin": who.skin,
        "hair": who.hair,
        "style": who.style,
        "beard": who.beard,
        "noun": "woman" if who.woman else "man",
        "shirt": where.shirt,
        "glasses": "glasses" if where.glasses else "none",
        "expression": where.expression,
        "background": where.background,
        "quality": "noisy" if where.quality == "pattern" else where.quality,
    }
    numbers = [ATTRIBUTES[name].index(named[name]) for name in ATTRIBUTES]
    if who.style == "bald":
        numbers[list(ATTRIBUTES).index("hair")] = IGNORE
    if where.quality == "pattern":
        numbers[:-1] = [IGNORE] * (len(numbers) - 1)
    return np.array(numbers, np.int8)


def example(
    seed: int, index: int, views: int, features: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture `index` of a collection (H, W, 3) uint8, its labels, and the boxes of features
    (len(features), 4), xyxy in [0, 1], empty where absent. Here, for processes that only draw: they
    start without torch."""
    drawing = world.draw(seed, index, views)
    boxes = [drawing.boxes.get(name, (0.0, 0.0, 0.0, 0.0)) for name in features]
    return drawing.image, labels(drawing.identity, drawing.scene), np.array(boxes, np.float32)
