"""A worse detector, as bad as asked for: python -m pytest tests/concepts/test_disturbed.py"""

from typing import Any

import pytest
import torch
from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts import Detector, DisturbedDetector
from shortcut_lightning.concepts.geometry import overlap

BOX = (0.3, 0.3, 0.7, 0.6)


class Fixed(Detector):
    """The same box in every bright image."""

    def run(self, images: Tensor, names: Any = ()) -> list[list[ConceptBox]]:
        return [[ConceptBox("mark", 1.0, BOX)] if i.mean() > 0.5 else [] for i in images]


def images(count: int, level: float) -> Tensor:
    return level + 0.1 * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("wanted", [1.0, 0.8, 0.4])
def test_boxes_overlap_as_much_as_asked(wanted: float) -> None:
    found = DisturbedDetector(Fixed(), wanted).detect(images(30, 0.8))
    shares = [overlap(boxes[0].xyxy, BOX) for boxes in found if boxes[0].xyxy]
    assert shares == pytest.approx([wanted] * 30, abs=0.03)
    assert len({boxes[0].xyxy for boxes in found}) == (1 if wanted == 1 else 30)


def test_images_are_missed_and_boxes_invented() -> None:
    detector = DisturbedDetector(Fixed(), missed=0.3, invented=0.2, label="mark")
    missed = [not boxes for boxes in detector.detect(images(300, 0.8))]
    invented = [bool(boxes) for boxes in detector.detect(images(300, 0.2))]
    assert sum(missed) / 300 == pytest.approx(0.3, abs=0.08)
    assert sum(invented) / 300 == pytest.approx(0.2, abs=0.08)


def test_an_image_has_its_own_fate_in_any_company() -> None:
    detector = DisturbedDetector(Fixed(), 0.5, missed=0.3)
    many = images(10, 0.8)
    alone = [detector.detect(image[None])[0] for image in many]
    assert detector.detect(many.flip(0)) == alone[::-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 0.0}, r"DisturbedDetector\.overlap is 0; it must be from 0\.1"),
        ({"missed": 2.0}, r"DisturbedDetector\.missed is 2"),
        ({"invented": 0.5}, r"needs data\.detector\.label"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DisturbedDetector(Fixed(), **settings)  # type: ignore[arg-type]
