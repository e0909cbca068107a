"""Detectors look at photographs, not at thumbnails: python -m pytest tests/data/test_looking.py"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.cli import main
from shortcut_lightning.concepts import Detector, Detectors, GridClassifier
from shortcut_lightning.concepts.generators import QRCode
from shortcut_lightning.concepts.geometry import overlap
from shortcut_lightning.concepts.tiles import tiled
from shortcut_lightning.data import stages
from shortcut_lightning.data.loading import load_examples
from shortcut_lightning.data.looking import photographs, window
from shortcut_lightning.files.cache import Cache
from shortcut_lightning.files.images import save_image
from shortcut_lightning.prompts import Prompts

CPU = torch.device("cpu")


class White(Detector):
    """A box around what is white; remembers at which sizes it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def run(self, images: Tensor, names: tuple[str, ...] = ()) -> list[list[ConceptBox]]:
        self.asked += [tuple(image.shape[-2:]) for image in images]
        return [self._around(image) for image in images]

    def _around(self, image: Tensor) -> list[ConceptBox]:
        rows, columns = (image.amin(0) > 0.99).nonzero(as_tuple=True)
        if not len(rows):
            return []
        height, width = image.shape[-2:]
        x = (int(columns.min()) / width, (int(columns.max()) + 1) / width)
        y = (int(rows.min()) / height, (int(rows.max()) + 1) / height)
        return [ConceptBox("white", 1.0, (x[0], y[0], x[1], y[1]))]


def photograph(folder: Path, height: int, width: int, at: tuple[int, int, int, int]) -> Path:
    """Grey with a white rectangle at (left, top, right, bottom) pixels."""
    image = torch.full((3, height, width), 0.4)
    image[:, at[1] : at[3], at[0] : at[2]] = 1.0
    folder.mkdir(exist_ok=True)
    save_image(image, folder / "a.png")
    return folder


def examples(folder: Path, side: int = 32, crop: bool = True) -> list[Example]:
    return load_examples(
        folder, "instance_data_dir", Prompts("a photo"), captions=False, side=side, crop=crop
    )


def look(found: list[Example], tmp_path: Path, side: int = 4096) -> tuple[list[ConceptBox], list]:
    white = White()
    (boxes,) = stages.detect(found, white, Cache(tmp_path / "cache"), CPU, side)
    return boxes, white.asked


def test_a_photograph_is_looked_at_in_its_own_size_and_boxes_follow(tmp_path: Path) -> None:
    """Eight white pixels of 640 are gone in the 32 pixels that are learned."""
    folder = photograph(tmp_path / "photos", 640, 960, (400, 100, 408, 108))
    (box,), asked = look(examples(folder), tmp_path)
    assert asked == [(640, 960)]
    # Of the middle 640 columns, which begin at 160.
    assert box.xyxy == pytest.approx((240 / 640, 100 / 640, 248 / 640, 108 / 640))
    (box,), _ = look(examples(folder, crop=False), tmp_path)
    assert box.xyxy == pytest.approx((400 / 960, 100 / 640, 408 / 960, 108 / 640))
    boxes, asked = look(examples(folder), tmp_path, side=96)
    assert asked == [(64, 96)]
    assert not boxes


def test_what_a_stage_changed_is_looked_at_as_it_is_learned(tmp_path: Path) -> None:
    folder = photograph(tmp_path / "photos", 640, 640, (0, 0, 320, 640))
    (example,) = examples(folder)
    assert photographs([example], White()) == [folder / "a.png"]
    changed = example._replace(image=example.image * 0.5, photograph=None)
    boxes, asked = look([changed], tmp_path)
    assert asked == [(32, 32)]
    assert not boxes
    assert photographs([example], GridClassifier()) == [None]
    assert photographs([example], Detectors([White(), GridClassifier()])) == [None]


def test_a_small_picture_keeps_its_place_in_the_cache(tmp_path: Path) -> None:
    folder = photograph(tmp_path / "photos", 32, 32, (0, 0, 8, 8))
    (example,) = examples(folder)
    assert example.photograph is None
    _, asked = look([example], tmp_path)
    assert asked == [(32, 32)]


def test_another_photograph_behind_the_same_thumbnail_is_another_entry(tmp_path: Path) -> None:
    folder = photograph(tmp_path / "photos", 640, 640, (0, 0, 8, 8))
    first, _ = look(examples(folder), tmp_path)
    again, asked = look(examples(folder), tmp_path)
    assert again == first
    assert not asked  # from the cache
    image = torch.full((3, 640, 640), 0.4)
    image[:, 8:16, 8:16] = 1.0
    save_image(image, folder / "a.png")
    other, asked = look(examples(folder), tmp_path)
    assert asked
    assert other != first


@pytest.mark.parametrize(
    ("whole", "learned", "expected"),
    [
        ((640, 960), (32, 32), (1 / 6, 0, 5 / 6, 1)),
        ((960, 640), (32, 32), (0, 1 / 6, 1, 5 / 6)),
        ((640, 960), (32, 48), (0, 0, 1, 1)),
        ((641, 967), (32, 48), (0, 0, 1, 1)),
        ((64, 64), (64, 64), (0, 0, 1, 1)),
    ],
)
def test_the_part_that_is_learned(
    whole: tuple[int, int], learned: tuple[int, int], expected: tuple[float, ...]
) -> None:
    assert window(whole, learned) == pytest.approx(expected, abs=0.01)


def test_tiles_find_what_the_whole_hides_and_say_it_once() -> None:
    """A detector that shrinks everything to 32 pixels."""

    def small(image: Tensor) -> list[ConceptBox]:
        shrunk = functional.interpolate(image[None], (32, 32), mode="area")[0]
        return White()._around(shrunk)

    image = torch.full((3, 300, 500), 0.4)
    image[:, 100:110, 200:210] = 1.0
    assert small(image) == []
    (box,) = tiled(image, 64, small)
    assert box.xyxy is not None
    assert overlap(box.xyxy, (200 / 500, 100 / 300, 210 / 500, 110 / 300)) > 0.5
    assert tiled(image, 0, small) == []


def test_codes_on_photographs_are_found_through_the_verb(tmp_path: Path) -> None:
    """Codes of 96 pixels on pictures of 256, learned at the quickstart's 64: all, and no other."""
    pytest.importorskip("zxingcpp", reason="needs the extra `detect`")
    folder, places = tmp_path / "codes", {}
    folder.mkdir()
    for number in range(8):
        noise = torch.rand((1, 3, 9, 9), generator=torch.Generator().manual_seed(number))
        image = functional.interpolate(noise, (256, 256), mode="bicubic")[0].clamp(0, 1)
        if number < 4:
            made = QRCode(edge=(0.375, 0.375), versions=(1, 2), border=2)(image, 0, number)
            image, places[f"{number}.png"] = made.image, made.boxes[0].xyxy
        save_image(image, folder / f"{number}.png")
    out = tmp_path / "out"
    options = [f"--data.instance_data_dir={folder}", f"--data.cache_dir={tmp_path / 'cache'}"]
    options += [f"--output={out}", f"--output_dir={tmp_path / 'runs'}"]
    main(["detect", "--config", "quickstart", "--data.detector", "qr", *options])
    rows = [json.loads(line) for line in (out / "boxes.jsonl").read_text().splitlines()]
    assert {row["file_name"] for row in rows if row["boxes"]} == set(places)
    for row in rows:
        for box in row["boxes"]:
            assert overlap(tuple(box["xyxy"]), places[row["file_name"]]) > 0.5
    summary = json.loads((out / "summary.json").read_text())
    assert summary["looked at"].startswith("8 of 8 at their own size")
