"""Boxes and bins, against their definition and under flips and crops.

python -m pytest tests/concepts/test_geometry.py
"""

import random

import pytest

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.geometry import (
    Grid,
    area,
    cropped,
    largest,
    mirrored,
    overlap,
    shares,
)


def some_boxes(count: int = 200) -> list[ConceptBox]:
    chance = random.Random(0)
    boxes = []
    while len(boxes) < count:
        x, y = (
            sorted((chance.random(), chance.random())),
            sorted((chance.random(), chance.random())),
        )
        if x[1] - x[0] > 0.01 and y[1] - y[0] > 0.01:
            boxes.append(ConceptBox("mark", 1.0, (x[0], y[0], x[1], y[1])))
    return boxes


@pytest.mark.parametrize("size", [1, 4, 6, 7, 8])
def test_bins_are_those_that_share_area_with_the_box(size: int) -> None:
    grid = Grid(size)
    for box in some_boxes():
        assert box.xyxy
        touching = {n: overlap(box.xyxy, grid.box(n)) for n in range(len(grid))}
        found = grid.overlaps(box.xyxy)
        assert {n for n, share in touching.items() if share > 1e-6} <= set(found)
        assert set(found) <= {n for n, share in touching.items() if share > 0}
        assert sum(found.values()) / len(grid) == pytest.approx(area(box.xyxy))


def test_rows_come_first_and_numbers_from_zero() -> None:
    grid = Grid(4)
    assert grid.tokens[0] == "<l0>"
    assert grid.tokens[-1] == "<l15>"
    assert list(grid.overlaps((0.6, 0.1, 0.7, 0.2))) == [2]
    assert list(grid.overlaps((0.1, 0.6, 0.2, 0.7))) == [8]


@pytest.mark.parametrize("size", [4, 6, 8])
def test_a_box_on_bin_edges_does_not_spill(size: int) -> None:
    grid = Grid(size)
    for number in range(len(grid)):
        exact = grid.box(number)
        assert list(grid.overlaps(exact)) == [number]
        x0, y0, x1, y1 = (round(value, 7) for value in exact)
        assert list(grid.overlaps((x0, y0, x1, y1))) == [number]
    assert list(grid.overlaps((0, 0, 1, 1))) == list(range(len(grid)))


def test_boxes_are_clamped_and_empty_ones_dropped() -> None:
    grid = Grid(4)
    assert list(grid.overlaps((0.9, 0.9, 1.7, 3.0))) == [15]
    assert grid.overlaps((0.5, 0.2, 0.5, 0.8)) == {}
    assert grid.overlaps((1.2, 0.2, 1.5, 0.8)) == {}


def test_other_encodings_keep_the_boundary_or_two_corners() -> None:
    grid = Grid(4)
    assert list(grid.overlaps((0, 0, 0.75, 0.75), "boundary")) == [0, 1, 2, 4, 6, 8, 9, 10]
    assert list(grid.overlaps((0, 0, 0.75, 0.75), "corners")) == [0, 10]
    assert list(grid.overlaps((0.1, 0.1, 0.2, 0.2), "corners")) == [0]


def test_labels_are_united_and_in_order() -> None:
    boxes = [
        ConceptBox("text", 1.0, (0.0, 0.0, 0.3, 0.2)),
        ConceptBox("code", 1.0, None),
        ConceptBox("text", 1.0, (0.2, 0.0, 0.6, 0.25)),
    ]
    found = Grid(4).by_label(boxes)
    assert list(found) == ["code", "text"]
    assert found["code"] == {}
    assert found["text"] == pytest.approx({0: 0.8, 1: 1.0, 2: 0.4})


def test_flipping_the_boxes_flips_the_bins() -> None:
    grid = Grid(6)
    for box in some_boxes():
        flipped = {n // 6 * 6 + 5 - n % 6 for n in grid.bins([box])}
        assert set(grid.bins(mirrored([box]))) == flipped
    assert mirrored([ConceptBox("a", 1.0, None)]) == [ConceptBox("a", 1.0, None)]


def test_a_crop_keeps_what_is_inside() -> None:
    window = (0.25, 0.0, 0.75, 0.5)
    inside = ConceptBox("a", 1.0, (0.3, 0.1, 0.5, 0.4))
    half = ConceptBox("a", 1.0, (0.15, 0.1, 0.35, 0.4))
    sliver = ConceptBox("a", 1.0, (0.0, 0.1, 0.27, 0.4))
    outside = ConceptBox("a", 1.0, (0.8, 0.6, 0.9, 0.9))
    unplaced = ConceptBox("a", 1.0, None)
    found = cropped([inside, half, sliver, outside, unplaced], window)
    assert [box.xyxy and pytest.approx(box.xyxy) for box in found] == [
        (0.1, 0.2, 0.5, 0.8),
        (0.0, 0.2, 0.2, 0.8),
        None,
    ]


def test_a_crop_to_the_whole_changes_nothing() -> None:
    boxes = some_boxes(20)
    assert cropped(boxes, (0, 0, 1, 1)) == boxes


def test_room_is_shared_evenly_and_fully() -> None:
    assert shares([10, 3], 20) == [10, 3]
    assert shares([64, 64], 70) == [35, 35]
    assert shares([64, 4], 20) == [16, 4]
    assert shares([5, 5, 5], 7) == [3, 2, 2]
    assert shares([5], -3) == [0]
    assert largest({3: 0.2, 1: 0.9, 2: 0.9, 0: 0.1}, 3) == [1, 2, 3]


@pytest.mark.parametrize("size", [0, -1, 33])
def test_an_impossible_grid_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"data\.erasing\.grid_size"):
        Grid(size)
