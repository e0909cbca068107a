"""Boxes from a file: python -m pytest tests/concepts"""

import json
from pathlib import Path

import pytest
import torch

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts import CocoBoxes, CsvBoxes, PrecomputedBoxes


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


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"file_name": "ok.png", "boxes": []}, "ok.png has a row already"),
        ({"file_name": "a.png", "boxes": [box(xyxy=[float("nan"), 0, 1, 1])]}, "x0 < x1"),
        ({"file_name": "a.png", "boxes": [box(label=None)]}, "label is null, not a text"),
        ({"file_name": "a.png", "boxes": [box(label=3)]}, "label is 3, not a text"),
        ({"file_name": ["a.png"], "boxes": []}, "file_name is .*, not a text"),
        ({"file_name": 3, "boxes": []}, "file_name is 3, not a text"),
        ({"file_name": " ", "boxes": []}, "file_name is .*, not a text"),
    ],
)
def test_a_row_is_about_one_file_and_one_concept(tmp_path: Path, row: object, reason: str) -> None:
    path = write(tmp_path / "boxes.jsonl", {"file_name": "ok.png", "boxes": []}, row)
    with pytest.raises(ValueError, match=rf"line 2 \(data\.detector\.path\).*{reason}"):
        PrecomputedBoxes(path)


BAD = [
    ("50,10,30,30,80,40", "not x0 < x1"),
    ("nan,10,30,30,80,40", "has no number"),
    ("-20,10,30,30,80,40", "does not begin within the picture"),
    ("90,10,95,30,80,40", "does not begin within the picture"),
    ("30,10,50,30,,", "pixels need the picture's width and height"),
    ("0.1,0.5,50,30,,", "pixels need the picture's width and height"),
    ("30,10,50,30,80,", "one of width and height is empty"),
    ("30,10,50,30,0,40", "the picture's size is 0 x 40"),
    ("x,10,50,30,80,40", "could not convert string to float"),
]


@pytest.mark.parametrize(("numbers", "reason"), BAD)
def test_a_box_of_a_table_that_is_none_is_named_with_its_line(
    tmp_path: Path, numbers: str, reason: str
) -> None:
    path = tmp_path / "boxes.csv"
    head = "file_name,label,x0,y0,x1,y1,width,height\na.png,mark,30,10,50,30,80,40\n"
    path.write_text(f"{head}a.png,mark,{numbers}\n")
    with pytest.raises(ValueError, match=rf"line 3 \(data\.detector\.path\).*({reason})"):
        CsvBoxes(str(path))


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([50, 10, -20, 20], "not x0 < x1"),
        ([-20, 10, 40, 20], "does not begin within the picture"),
        ([float("nan"), 10, 20, 20], "has no number"),
        ([1, 2, 3], "ValueError"),
    ],
)
def test_a_box_of_coco_that_is_none_is_named(
    tmp_path: Path, bbox: list[float], reason: str
) -> None:
    rows = [{"image_id": 1, "category_id": 1, "bbox": each} for each in ([0, 0, 9, 9], bbox)]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 40}],
        "categories": [{"id": 1, "name": "mark"}],
        "annotations": rows,
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    where = r"annotations\[1\] \(data\.detector\.path\)"
    with pytest.raises(ValueError, match=rf"{where}.*{reason}"):
        CocoBoxes(str(path))


def test_files_of_boxes_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "boxes").write_bytes("caf\u00e9".encode("latin-1"))
    for kind in (PrecomputedBoxes, CsvBoxes, CocoBoxes):
        with pytest.raises(ValueError, match="is not in UTF-8"):
            kind(str(tmp_path / "boxes"))
