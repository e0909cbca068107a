"""Adapters to other tools' boxes and models: python -m pytest tests/concepts/test_detectors.py"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts import (
    CocoBoxes,
    ConceptClassifier,
    CsvBoxes,
    Detectors,
    DisturbedDetector,
    FunctionDetector,
    ObjectDetector,
    QRCodeDetector,
    TextDetector,
    UltralyticsDetector,
    ZeroShotDetector,
)
from shortcut_lightning.concepts.extra import needed, versions
from shortcut_lightning.concepts.grid_classifier import GridClassifier, GridNetwork, cell_targets
from shortcut_lightning.concepts.pixels import enlarged, to_rgb, to_tensor
from shortcut_lightning.concepts.transformers_models import tile_boxes
from shortcut_lightning.files.cache import describe, key_of

IMAGES = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def coco(folder: Path, **changes: Any) -> str:
    content = {
        "images": [
            {"id": 7, "file_name": "set/a.png", "width": 80, "height": 40},
            {"id": 8, "file_name": "b.png", "width": 40, "height": 40},
        ],
        "categories": [{"id": 1, "name": "mark"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [30, 10, 20, 20]},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 15, 15]},
            {"image_id": 8, "category_id": 1, "bbox": [30, 30, 20, 5], "score": 0.75},
            {"image_id": 8, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.2},
        ],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(content | changes))
    return str(path)


def test_coco_boxes_are_carried_into_the_centre_crop(tmp_path: Path) -> None:
    """a.png is twice as wide as high: the square in its middle starts at pixel 20."""
    a, b = CocoBoxes(coco(tmp_path)).detect(IMAGES, ["a.png", "b.png"])
    assert a == [ConceptBox("mark", 1.0, pytest.approx((0.25, 0.25, 0.75, 0.75)))]
    assert b == [ConceptBox("mark", 0.75, (0.75, 0.75, 1.0, 0.875))]
    wide = CocoBoxes(coco(tmp_path)).detect(torch.zeros(1, 3, 20, 40), ["a.png"])[0]
    assert [box.xyxy for box in wide] == [(0.375, 0.25, 0.625, 0.75), (0, 0, 0.1875, 0.375)]


def test_boxes_by_name_are_told_from_those_that_are_seen(tmp_path: Path) -> None:
    by_name, seen = CocoBoxes(coco(tmp_path)), QRCodeDetector()
    nested = [DisturbedDetector(by_name), Detectors([seen, by_name]), Detectors([seen])]
    assert [each.looks_up_names for each in (by_name, seen, *nested)] == [
        True,
        False,
        True,
        True,
        False,
    ]


def test_csv_boxes_in_pixels_or_shares(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(
        "file_name,label,x0,y0,x1,y1,score,width,height\n"
        "a.png,mark,30,10,50,30,0.9,80,40\n"
        "b.png,text,0.1,0.2,0.3,0.4,,,\n"
        "b.png,text,0.1,0.2,0.3,0.4,0.1,,\n"
    )
    a, b = CsvBoxes(str(path)).detect(IMAGES, ["a.png", "b.png"])
    assert a == [ConceptBox("mark", 0.9, pytest.approx((0.25, 0.25, 0.75, 0.75)))]
    assert b == [ConceptBox("text", 1.0, (0.1, 0.2, 0.3, 0.4))]


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No file of boxes at .* \(data\.detector\.path\)"):
        CocoBoxes(str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match=r"KeyError 1\. Expected COCO's images"):
        CocoBoxes(coco(tmp_path, categories=[]))
    path = tmp_path / "boxes.csv"
    path.write_text("name,x\na,1\n")
    with pytest.raises(ValueError, match="Expected the columns file_name"):
        CsvBoxes(str(path))
    with pytest.raises(ValueError, match="got 1 names for 2 images"):
        CocoBoxes(coco(tmp_path)).detect(IMAGES, ["a.png"])


def bright(image: Any) -> list[dict[str, Any]]:
    """A stand-in for a function of the user's."""
    assert image.shape == (40, 40, 3)
    assert image.dtype.name == "uint8"
    return [
        {"label": "bright", "score": 0.9, "xyxy": [0, 0, 0.5, 0.5]},
        {"label": "bright", "score": 0.1, "xyxy": None},
    ]


def wrong(image: Any) -> list[dict[str, Any]]:
    return [{"label": "bright", "score": 0.9, "xyxy": [0, 0, 20, 20]}]


def test_a_function_is_a_detector() -> None:
    found = FunctionDetector(f"{__name__}:bright").detect(IMAGES)
    assert found == [[ConceptBox("bright", 0.9, (0, 0, 0.5, 0.5))]] * 2
    with pytest.raises(ValueError, match=r"must return dicts of label, score and xyxy"):
        FunctionDetector(f"{__name__}:wrong").detect(IMAGES)
    for path in ("nowhere.at.all:f", f"{__name__}:missing", "no_colon"):
        with pytest.raises(ValueError, match=r"expected package\.module:name"):
            FunctionDetector(path)


def test_cached_boxes_depend_on_a_function_s_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the function's detector is one of several, and those are disturbed."""
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for name, code in (("one", "return []"), ("two", "return []"), ("three", "return [1]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"def find(image):\n    {code}\n")
        monkeypatch.syspath_prepend(tmp_path / name)
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        detector = FunctionDetector("mine:find")
        keys.append(key_of(detector=DisturbedDetector(Detectors([detector]))))
    assert keys[0] == keys[1]
    assert keys[1] != keys[2]


def test_cached_boxes_depend_on_the_packages_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    detectors = [
        (QRCodeDetector(), "zxing-cpp"),
        (TextDetector(), "onnxruntime"),
        (ObjectDetector("a"), "transformers"),
    ]
    for number in ("1", "2"):
        monkeypatch.setattr("importlib.metadata.version", lambda package, number=number: number)
        assert all(f"{package} {number}" in each.version for each, package in detectors)
    assert describe(QRCodeDetector())[2].endswith("zxing-cpp 2")
    assert len(describe(Detectors([]))) == 2  # as ever without a version
    monkeypatch.undo()
    assert versions("no-such-package") == ""


def test_several_detectors_are_one() -> None:
    twice = Detectors([FunctionDetector(f"{__name__}:bright")] * 2)
    assert [len(boxes) for boxes in twice.detect(IMAGES)] == [2, 2]


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(ValueError, match=r"pip install 'shortcut-lightning\[detect\]'"):
        needed("no_such_package", "QRCodeDetector")
    with pytest.raises(ValueError, match=r"pip install ultralytics \(AGPL-3.0\)"):
        UltralyticsDetector("model.pt").detect(IMAGES)


@pytest.mark.parametrize(
    "detector",
    [
        ObjectDetector("nowhere/at-all"),
        ZeroShotDetector("nowhere/at-all", {"mark": "a mark"}),
        ConceptClassifier("nowhere/at-all", "mark"),
    ],
)
def test_a_model_that_cannot_be_had_is_named(detector: Any) -> None:
    with pytest.raises(ValueError, match="Cannot load the detector 'nowhere/at-all'"):
        detector.detect(IMAGES)


def test_object_detectors_of_transformers(tmp_path: Path) -> None:
    """A random YOLOS finds nonsense, but in the right form and scale, and keeps chosen classes."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[32, 32],
        num_detection_tokens=6,
        num_labels=2,
        id2label={0: "mark", 1: "text"},
        label2id={"mark": 0, "text": 1},
        use_mid_position_embeddings=False,
    )
    YolosForObjectDetection(config).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    YolosImageProcessorPil(do_resize=True, size=size, do_pad=False).save_pretrained(tmp_path)
    found = ObjectDetector(str(tmp_path), threshold=0.0, rename={"mark": "watermark"}).detect(
        IMAGES
    )
    boxes = [box for image in found for box in image]
    assert boxes
    assert {box.label for box in boxes} <= {"watermark", "text"}
    for box in boxes:
        assert box.xyxy
        assert 0 <= box.xyxy[0] < box.xyxy[2] <= 1
    only = ObjectDetector(str(tmp_path), labels=["text"], threshold=0.0).detect(IMAGES)
    assert sum(map(len, only)) == sum(box.label == "text" for box in boxes)


def test_classifiers_of_transformers(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        id2label={0: "clear", 1: "mark"},
        label2id={"clear": 0, "mark": 1},
    )
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    both = [
        ConceptClassifier(str(tmp_path), name, threshold=0.0).probabilities(IMAGES)
        for name in ("mark", "clear")
    ]
    torch.testing.assert_close(both[0] + both[1], torch.ones(2))
    exists = ConceptClassifier(str(tmp_path), "mark", "logo", threshold=0.0).detect(IMAGES)
    assert [[(box.label, box.xyxy) for box in image] for image in exists] == [[("logo", None)]] * 2
    assert ConceptClassifier(str(tmp_path), "mark", threshold=1.0).detect(IMAGES) == [[], []]
    with pytest.raises(ValueError, match=r"the classifier knows: clear, mark"):
        ConceptClassifier(str(tmp_path), "logo").detect(IMAGES)


def test_tiles_say_where() -> None:
    def whiteness(tiles: Tensor) -> Tensor:
        return tiles.mean(dim=(1, 2, 3))

    image = torch.zeros(3, 40, 40)
    image[:, 20:30, 30:40] = 1
    assert tile_boxes(whiteness, image, "white", 0.9, 4) == [
        ConceptBox("white", 1.0, (0.75, 0.5, 1.0, 0.75))
    ]
    assert tile_boxes(whiteness, image, "white", 0.9, 0) == []


def test_a_concept_classifier_is_saved_and_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = GridNetwork(["mark", "text"], side=32, width=8)
    network.save(tmp_path)
    with torch.no_grad():
        present = network.eval()(IMAGES)[0].sigmoid()
    found = GridClassifier(str(tmp_path), threshold=0.0).detect(IMAGES)
    for boxes, expected in zip(found, present, strict=True):
        assert [box.label for box in boxes] == ["mark", "text"]
        assert [box.score for box in boxes] == pytest.approx(expected.tolist(), abs=1e-2)
    one = GridClassifier(str(tmp_path), threshold=0.0, labels=["text"]).detect(IMAGES)
    assert [[box.label for box in boxes] for boxes in one] == [["text"]] * 2
    with pytest.raises(ValueError, match=r"labels names logo; .* knows: mark, text"):
        GridClassifier(str(tmp_path), labels=["logo"]).detect(IMAGES)
    with pytest.raises(ValueError, match="No trained concept classifier"):
        GridClassifier(str(tmp_path / "none")).detect(IMAGES)


def test_cells_of_boxes() -> None:
    boxes = [ConceptBox("text", 1.0, (0.0, 0.0, 0.125, 0.0625))]
    cells = cell_targets(boxes, ["mark", "text"])
    assert cells.shape == (2, 8, 8)
    assert cells.sum() == 0.5
    assert cells[1, 0, 0] == 0.5


def test_no_image_no_boxes() -> None:
    for detector in (QRCodeDetector(), TextDetector()):
        assert detector.detect(torch.zeros(0, 3, 32, 32)) == []


def test_pixels_survive_the_way_there_and_back() -> None:
    levels = (IMAGES[0] * 255).round() / 255
    assert torch.equal(to_tensor(to_rgb(levels)), levels)
    assert enlarged(IMAGES[0], 20).shape == (3, 40, 40)
    assert enlarged(torch.rand(3, 10, 20), 30).shape == (3, 30, 60)


def test_zero_shot_detectors_of_transformers(tmp_path: Path) -> None:
    from models import small_tokenizer
    from transformers import (
        OwlViTConfig,
        OwlViTForObjectDetection,
        OwlViTImageProcessorPil,
        OwlViTProcessor,
    )

    torch.manual_seed(0)
    tokenizer = small_tokenizer()
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = OwlViTConfig(
        text_config={
            **tower,
            "num_attention_heads": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 16,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**tower, "num_attention_heads": 2, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    OwlViTForObjectDetection(config).save_pretrained(tmp_path)
    tokenizer.model_max_length = 16
    prepare = OwlViTImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    OwlViTProcessor(prepare, tokenizer).save_pretrained(tmp_path)
    queries = {"mark": "a photo", "dog": "a dog"}
    found = ZeroShotDetector(str(tmp_path), queries, threshold=0.0).detect(IMAGES)
    assert {box.label for image in found for box in image} == {"mark", "dog"}
    assert ZeroShotDetector(str(tmp_path), queries, threshold=1.0).detect(IMAGES) == [[], []]
    with pytest.raises(ValueError, match=r"data\.detector\.queries is empty"):
        ZeroShotDetector(str(tmp_path), {})
