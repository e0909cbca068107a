"""Boxes from a file: python -m pytest tests/concepts"""

import json
from pathlib import Path

import pytest
import torch

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts import PrecomputedBoxes


def write(path: Path, *rows: object) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return str(path)


def box(**changes: object) -> dict[str, object]:
    return {"label": "watermark", "score": 0.9, "xyxy": [0.1, 0.2, 0.5, 0.6]} | changes


def test_boxes_go_to_the_image_of_their_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "boxes.jsonl",
        {"file_name": "b.png", "boxes": [box(), box(label="qr", xyxy=None)]},
        {"file_name": "other.png", "boxes": [box()]},
    )
    found = PrecomputedBoxes(path).detect(torch.zeros(2, 3, 8, 8), ["a.png", "b.png"])
    assert found == [
        [],
        [ConceptBox("watermark", 0.9, (0.1, 0.2, 0.5, 0.6)), ConceptBox("qr", 0.9, None)],
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"boxes": []}, "file_name"),
        ({"file_name": "a.png", "boxes": [box(score=1.5)]}, r"score 1\.5"),
        ({"file_name": "a.png", "boxes": [box(xyxy=[0.5, 0.2, 0.1, 0.6])]}, "x0 < x1"),
        ({"file_name": "a.png", "boxes": [box(xyxy=[10, 20, 50, 60])]}, "within"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, row: object, reason: str) -> None:
    path = write(tmp_path / "boxes.jsonl", {"file_name": "ok.png", "boxes": []}, row)
    with pytest.raises(ValueError, match=rf"line 2 \(data\.detector\.path\).*{reason}"):
        PrecomputedBoxes(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"No file of boxes at 'no\.jsonl' \(data\.detector\.path\)"
    ):
        PrecomputedBoxes("no.jsonl")


def test_names_are_needed(tmp_path: Path) -> None:
    detector = PrecomputedBoxes(write(tmp_path / "boxes.jsonl"))
    with pytest.raises(ValueError, match="0 names for 1 images"):
        detector.detect(torch.zeros(1, 3, 8, 8))
