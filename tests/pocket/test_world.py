"""The world: same numbers, same pictures; captions say what is drawn."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortcut_lightning.pocket import world
from shortcut_lightning.pocket.captions import PLACES, describe, vocabulary
from shortcut_lightning.pocket.labels import ATTRIBUTES, IGNORE, labels


def test_same_numbers_same_picture_and_other_numbers_another() -> None:
    first, again, other = world.draw(3, 7), world.draw(3, 7), world.draw(4, 7)
    assert np.array_equal(first.image, again.image)
    assert first.caption == again.caption
    assert first.boxes == again.boxes
    assert not np.array_equal(first.image, other.image)


def test_consecutive_views_show_one_person_in_several_scenes() -> None:
    views = [world.draw(5, index, views=4) for index in range(5)]
    assert len({view.identity for view in views[:4]}) == 1
    assert views[4].identity != views[0].identity
    assert len({view.scene.seed for view in views}) == 5


@pytest.mark.parametrize("index", range(40))
def test_picture_boxes_and_caption_agree_with_the_factors(index: int) -> None:
    drawing = world.draw(11, index)
    assert drawing.image.shape == (64, 64, 3)
    assert drawing.image.dtype == np.uint8
    for x0, y0, x1, y1 in drawing.boxes.values():
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
    who, where, words = drawing.identity, drawing.scene, drawing.caption
    if where.quality == "pattern":
        assert words == "a noisy pattern"
        assert not drawing.boxes
        return
    assert f"{who.skin} skin" in words
    assert f"a {where.shirt} shirt" in words
    assert PLACES[where.background] in words
    assert where.expression in words
    assert ("glasses" in words) == where.glasses == ("glasses" in drawing.boxes)
    assert ("bald" if who.style == "bald" else f"{who.style} {who.hair} hair") in words
    assert (who.beard in words) or who.beard == "none"
    assert (where.quality in words.split()) == (where.quality != "clean")
    face = drawing.boxes["face"]
    assert (face[2] - face[0]) * 64 > 18, "a face must be large enough to survive the autoencoder"


def test_varied_captions_use_known_words_and_are_sometimes_short() -> None:
    known, texts = set(vocabulary()), []
    for index in range(300):
        drawing = world.draw(11, index % 20)
        texts.append(describe(drawing.identity, drawing.scene, world.generator(index)))
    assert {word for text in texts for word in text.replace(",", "").split()} <= known
    assert "a photo of a person" in texts
    assert np.median([len(text.split()) for text in texts]) > 10


def test_no_caption_names_a_concept_the_world_does_not_show() -> None:
    for index in range(200):
        words = world.draw(12, index).caption.split()
        assert not {"watermark", "qr", "code", "text", "logo"} & set(words)


def test_quality_degrades_one_and_the_same_picture() -> None:
    drawing = world.draw(2, 1, quality="clean")
    clean = drawing.image.astype(float)
    for quality in ("noisy", "blurry"):
        spoilt, _ = world.render(drawing.identity, replace(drawing.scene, quality=quality))
        assert 4 < np.abs(spoilt - clean).mean() < 60


def test_labels_are_classes_or_ignored() -> None:
    for index in range(60):
        drawing = world.draw(13, index)
        row = dict(zip(ATTRIBUTES, labels(drawing.identity, drawing.scene), strict=True))
        assert all(IGNORE <= row[name] < len(classes) for name, classes in ATTRIBUTES.items())
        assert (row["hair"] == IGNORE) == (
            drawing.identity.style == "bald" or drawing.scene.quality == "pattern"
        )


def test_a_subject_folder_holds_one_person_in_separate_scenes(tmp_path: Path) -> None:
    world.write_subject(5, tmp_path, instances=3, references=4)
    seen = []
    for part, count in (("instance", 3), ("reference", 4)):
        rows = [
            json.loads(line)
            for line in (tmp_path / part / "metadata.jsonl").read_text().splitlines()
        ]
        assert len(rows) == count
        for row in rows:
            assert row["text"].startswith("a photo of a person with")
            seen.append(np.asarray(Image.open(tmp_path / part / row["file_name"])))
    assert len({picture.tobytes() for picture in seen}) == 7
