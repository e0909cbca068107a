"""Concepts to order: boxes are where the picture changed, and a seed is a picture.

python -m pytest tests/concepts/test_generators.py
"""

from typing import Any

import pytest
import torch
from clutter import grain

from shortcut_lightning.concepts.generators import ConceptGenerator, QRCode, Text, Watermark

GENERATORS: list[ConceptGenerator] = [
    QRCode(),
    Watermark(),
    Watermark(placements=("tile",)),
    Watermark(placements=("bar",), text="ACME"),
    Watermark(placements=("corner",), marks=("logo",)),
    Text(),
]


@pytest.mark.parametrize("size", [64, 150])
@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: type(g).__name__)
def test_boxes_hold_what_was_drawn(generator: ConceptGenerator, size: int) -> None:
    for index in range(6):
        image = grain(index, size)
        made = generator(image, 3, index)
        assert made.image.shape == image.shape
        difference = (made.image - image).abs().amax(dim=0)
        changed = difference > 0
        assert changed.any()
        inside = torch.zeros_like(changed)
        for box in made.boxes:
            assert box.label == generator.label
            assert box.xyxy is not None
            x0, y0, x1, y1 = (value * size for value in box.xyxy)
            assert 0 <= x0 < x1 <= size
            assert 0 <= y0 < y1 <= size
            assert changed[int(y0) : round(y1 + 0.5), int(x0) : round(x1 + 0.5)].any()
            inside[int(y0) : round(y1 + 0.5), int(x0) : round(x1 + 0.5)] = True
        if not isinstance(generator, Text):  # whose boxes are lines, without the strip below them
            assert difference[~inside].max() <= 12 / 255


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: type(g).__name__)
def test_a_seed_is_a_picture(generator: ConceptGenerator) -> None:
    image = grain(0, 96)
    first, second = generator(image, 1, 5), generator(image, 1, 5)
    assert torch.equal(first.image, second.image)
    assert first.boxes == second.boxes
    assert not torch.equal(first.image, generator(image, 1, 6).image)
    assert not torch.equal(first.image, generator(image, 2, 5).image)


def test_tiles_have_a_box_each_and_opacity_is_kept() -> None:
    mark = Watermark(placements=("tile",), opacity=(0.2, 0.2), period=(0.2, 0.2))
    made = mark(torch.full((3, 200, 200), 0.5), 0, 0)
    assert len(made.boxes) > 4
    assert (made.image - 0.5).abs().max() <= 0.5 * 0.2 + 2 / 255


def test_the_share_is_kept() -> None:
    for share in (0.0, 0.3, 1.0):
        chosen = [QRCode(share=share).chosen(0, index) for index in range(400)]
        assert sum(chosen) / 400 == pytest.approx(share, abs=0.08)


def test_codes_can_be_read() -> None:
    """The strongest proof that what is drawn is a QR code."""
    zxing = pytest.importorskip("zxingcpp")
    for index in range(5):
        code = QRCode(border=4).modules(QRCode().random(0, index)).repeat(6, 0).repeat(6, 1)
        found = zxing.read_barcodes(code)
        assert [result.format for result in found] == [zxing.BarcodeFormat.QRCode]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (QRCode, {"edge": (0.5, 0.2)}, r"^edge is \[0\.5, 0\.2\]; give the smaller number first"),
        (QRCode, {"versions": (1, 9)}, r"^QRCode\.versions\.1 is 9; it must be from 1 to 6"),
        (Watermark, {"opacity": (0.1, 1.2)}, r"^Watermark\.opacity\.1 is 1\.2; .* from 0 to 1"),
        (Text, {"size": (0, 0.1)}, r"^Text\.size\.0 is 0; it must be from 0\.01 to 0\.5"),
    ],
)
def test_impossible_ranges_are_named(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_codes_with_a_text_and_few_places() -> None:
    made = QRCode(edge=(0.5, 0.5), versions=(1, 1), places=2, text="SHOP")
    places = {made(grain(0, 64), 0, index).boxes[0].xyxy for index in range(12)}
    assert places == {(x, y, x + 0.5, y + 0.5) for x in (0.0, 0.5) for y in (0.0, 0.5)}
    first, second = (made.modules(made.random(0, index)) for index in (0, 1))
    assert (first == second).all()
    with pytest.raises(ValueError, match="does not fit"):
        QRCode(versions=(1, 1), text="A" * 60)
    with pytest.raises(ValueError, match="places is 1"):
        QRCode(places=1)


def test_text_of_one_offer_on_white_banners() -> None:
    offer = Text(lines=(1, 1), placements=("banner",), text="SALE", papers=1, places=3)
    tops = set()
    for index in range(20):
        made = offer(torch.zeros(3, 64, 64), 0, index)
        rows = (made.image.amax(dim=(0, 2)) == 1).nonzero().flatten()
        tops.add(int(rows[0]) // 16)  # top, middle or bottom; heights differ a little
        assert (made.image[:, rows[0]] == 1).all()
    assert tops == {0, 1, 3}
    with pytest.raises(ValueError, match="papers is 0"):
        Text(papers=0)
