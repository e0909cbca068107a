"""The verb `detect`: python -m pytest tests/cli/test_verb_detect.py"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from shortcut_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def args(small_sd: Path, tmp_path: Path) -> list[str]:
    """Two pictures, one with a box drawn at a known place, and boxes by hand for them."""
    (tmp_path / "photos").mkdir()
    for name in ("clean.png", "marked.png"):
        picture = Image.effect_noise((64, 48), 60).convert("RGB")
        if name == "marked.png":
            ImageDraw.Draw(picture).rectangle((8, 0, 31, 23), fill="white")
        picture.save(tmp_path / "photos" / name)
    box = {"label": "logo", "score": 0.9, "xyxy": [0.0, 0.0, 0.5, 0.5]}
    row = {"file_name": "marked.png", "boxes": [box]}
    (tmp_path / "boxes.jsonl").write_text(json.dumps(row))
    return [
        "--model=DreamBooth",
        f"--model.pretrained_model_name_or_path={small_sd}",
        "--data=PersonalizationDataModule",
        f"--data.instance_data_dir={tmp_path / 'photos'}",
        "--trainer.accelerator=cpu",
    ]


def by_hand(folder: Path) -> list[str]:
    return [
        "--data.detector=PrecomputedBoxes",
        f"--data.detector.path={folder / 'boxes.jsonl'}",
    ]


def test_boxes_contact_sheet_and_numbers(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    main(["detect", *args, *by_hand(tmp_path), "--output", str(out)])
    told = capsys.readouterr().out
    assert "1 of 2 images with a concept" in told
    assert "logo: 1 images, 1 boxes, 25.0% of the frame" in told
    assert "on clean images: boxes are looked up by file name" in told
    rows = [json.loads(line) for line in (out / "boxes.jsonl").read_text().splitlines()]
    assert [len(row["boxes"]) for row in rows] == [0, 1]
    assert rows[1]["boxes"][0]["xyxy"] == [0.0, 0.0, 0.5, 0.5]
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 160
    summary = json.loads((out / "summary.json").read_text())
    assert summary["labels"]["logo"]["boxes"] == 1
    assert summary["floor"].keys() == {"left out"}
    assert not list(tmp_path.glob("runs/**/*"))


def whitish(image: Any) -> list[dict[str, Any]]:
    """A detector of the white rectangle."""
    shown = image[2:20, 2:20].mean() > 250
    return [{"label": "logo", "score": 1, "xyxy": None}] if shown else []


def test_the_floor_is_that_of_the_clean_folder(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looking = [
        "--data.detector=FunctionDetector",
        f"--data.detector.function={__name__}:whitish",
        "--data.resolution=48",
    ]
    clean = ["--clean_data_dir", str(tmp_path / "photos")]
    for given, told in ((clean, "1 of 2"), ([], "0 of 64")):
        out = ["--output", str(tmp_path / told)]
        main(["detect", *args, *looking, *given, *out])
        assert f"on clean images {told}" in capsys.readouterr().out


def in_the_first_quarter(image: Any) -> list[dict[str, Any]]:
    """A detector that always finds the same."""
    return [{"label": "logo", "score": 1, "xyxy": (0.0, 0.0, 0.25, 1.0)}]


def test_boxes_are_those_of_the_buckets_that_training_has(args: list[str], tmp_path: Path) -> None:
    """At the side of a lying picture, which a square crop loses."""
    (tmp_path / "wide").mkdir()
    Image.effect_noise((256, 128), 60).convert("RGB").save(tmp_path / "wide" / "a.png")
    looking = [
        f"--data.instance_data_dir={tmp_path / 'wide'}",
        "--data.detector=FunctionDetector",
        f"--data.detector.function={__name__}:in_the_first_quarter",
        "--data.resolution=64",
    ]
    found = []
    for bucketing in ("false", "true"):
        out = tmp_path / bucketing
        main(["detect", *args, *looking, f"--data.bucketing={bucketing}", "--output", str(out)])
        row = json.loads((out / "boxes.jsonl").read_text())
        found += [[box["xyxy"] for box in row["boxes"]]]
    assert found[0] == []  # nothing is left of the first quarter
    assert found[1] == [pytest.approx([0, 0, 0.2, 1])]  # 80 of 96 columns of a bucket 48 high


def test_protections_have_a_score_and_no_place(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    looking = ["--data.detector=protection", "--data.detector.false_alarms=0.2"]
    main(["detect", *args, *looking, "--data.resolution=48", "--output", str(out)])
    told = capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "boxes.jsonl").read_text().splitlines()]
    found = [box for row in rows for box in row["boxes"]]
    assert f"{sum(bool(row['boxes']) for row in rows)} of 2 images" in told
    assert {row["file_name"] for row in rows} == {"clean.png", "marked.png"}
    assert all(box["label"] == "protection" and box["xyxy"] is None for box in found)
    assert all(0 < box["score"] < 1 for box in found)
    assert 0 <= json.loads((out / "summary.json").read_text())["floor"]["with a box"] <= 32
    assert (out / "contact_sheet.png").is_file()


def test_an_impossible_rate_of_false_alarms_costs_a_line(
    args: list[str], mistake: Callable[..., str], tmp_path: Path
) -> None:
    asked = ["--data.detector=protection", "--data.detector.false_alarms=0.5"]
    told = mistake("detect", *args, *asked, "--output", str(tmp_path / "found"))
    assert "false_alarms" in told
    assert "from 0.01 to 0.2" in told


def test_mistakes_cost_a_line(args: list[str], mistake: Callable[..., str], tmp_path: Path) -> None:
    out = ["--output", str(tmp_path / "found")]
    assert "data.detector is not set" in mistake("detect", *args, *out)
    assert "output" in mistake("detect", *args, *by_hand(tmp_path))
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "boxes.jsonl").touch()
    assert "already holds boxes.jsonl" in mistake("detect", *args, *by_hand(tmp_path), *out)
    gone = f"--data.instance_data_dir={tmp_path / 'gone'}"
    again = [*by_hand(tmp_path), *out, "--overwrite=true"]
    assert "data.instance_data_dir" in mistake("detect", *args, gone, *again)


def test_a_side_that_is_given_needs_no_model(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ["--model.pretrained_model_name_or_path=no/such-model", "--data.resolution=48"]
    main(["detect", *args, *nowhere, *by_hand(tmp_path), "--output", str(tmp_path / "found")])
    assert "1 of 2 images with a concept" in capsys.readouterr().out
