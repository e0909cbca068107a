"""Sets with known concepts, and the stage that finds them: one round trip.

python -m pytest tests/data/test_implicit_concepts.py
"""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor

from shortcut_lightning.concepts import PrecomputedBoxes, QRCodeDetector
from shortcut_lightning.concepts.generators import QRCode, Text
from shortcut_lightning.concepts.geometry import overlap
from shortcut_lightning.data.detect_folder import Look, detect_folder
from shortcut_lightning.data.implicit_concepts import pictures_of, write_implicit_concepts
from shortcut_lightning.data.pasted import PastedConcepts
from shortcut_lightning.files.images import load_image


def write(folder: Path, **options: Any) -> Path:
    settings: dict[str, Any] = {"count": 12, "references": 3, "resolution": 96}
    concept = QRCode(share=0.5, versions=(1, 2), edge=(0.4, 0.5))
    write_implicit_concepts(str(folder), concept, **settings | options)
    return folder


def test_a_set_holds_what_it_says(tmp_path: Path) -> None:
    folder = write(tmp_path / "qr")
    names = sorted(path.name for path in (folder / "train").glob("*.png"))
    assert len(names) == 12
    assert names == sorted(path.name for path in (folder / "clean").glob("*.png"))
    assert len(list((folder / "reference").glob("*.png"))) == 3
    images = torch.stack([load_image(folder / "train" / name) for name in names])
    assert images.shape == (12, 3, 96, 96)
    boxes = PrecomputedBoxes(str(folder / "boxes.jsonl")).detect(images, names)
    for name, image, found in zip(names, images, boxes, strict=True):
        assert torch.equal(image, load_image(folder / "clean" / name)) == (not found)
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["with the concept"] == sum(map(bool, boxes))
    assert 0 < sum(map(bool, boxes)) < 12
    rows = [json.loads(line) for line in (folder / "train/metadata.jsonl").read_text().splitlines()]
    assert all(row["text"].startswith("a ") for row in rows)
    assert (folder / "prompts.txt").read_text().strip()


def test_the_seed_is_the_set(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", count=4), write(tmp_path / "b", count=4)
    other = write(tmp_path / "c", count=4, seed=1)
    read = {f: [p.read_bytes() for p in sorted(f.rglob("*.png"))] for f in (first, second, other)}
    assert read[first] == read[second] != read[other]


def test_a_folder_of_photographs_will_do(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(5):
        pixels = torch.randint(256, (70, 90, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.byte().numpy()).save(photos / f"{number}.jpg")
    write_implicit_concepts(
        str(tmp_path / "set"), Text(), str(photos), 0, 2, resolution=64, prompt="a photo of sks dog"
    )
    rows = (tmp_path / "set/train/metadata.jsonl").read_text().splitlines()
    assert [json.loads(row)["text"] for row in rows] == ["a photo of sks dog"] * 3
    for number in range(5):
        (photos / f"{number}.txt").write_text("a cat on a mat")
    found = pictures_of(str(photos), 0, 64, "a photo")
    assert [each.prompt for each in found] == ["a cat on a mat"] * 5
    data = PastedConcepts([QRCode()], str(photos), count=3)
    data.setup("fit")
    assert len(data.images) == 3
    (photos / "3.jpg").rename(photos / "2.png")
    with pytest.raises(ValueError, match=r"2 pictures of .* would all be 2\.png"):
        write_implicit_concepts(str(tmp_path / "next"), Text(), str(photos), 0, 2, prompt="a dog")


def test_short_captions_of_the_world(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", prompt="a photo of a person {place}")
    rows = (folder / "train/metadata.jsonl").read_text().splitlines()
    texts = {json.loads(row)["text"] for row in rows}
    assert "a photo of a person in the city" in texts
    assert all(text.startswith("a photo of a person ") and "{" not in text for text in texts)
    assert (folder / "prompts.txt").read_text().strip()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "pocket:x"}, "pocket:<seed>"),
        ({"count": 0}, "count is 0"),
        ({"source": "nowhere"}, r"nowhere \(data\.source\), which does not exist"),
    ],
)
def test_impossible_sets_are_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "set", **options)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not empty"):
        write(tmp_path)


def test_detecting_a_folder(tmp_path: Path) -> None:
    """What `detect` writes agrees with what was pasted, and can be trained with."""
    pytest.importorskip("cv2")
    folder = write(tmp_path / "qr")
    summary = detect_folder(
        Look(
            QRCodeDetector(),
            str(folder / "train"),
            str(tmp_path / "out"),
            resolution=96,
            clean_data_dir=str(folder / "clean"),
        )
    )
    truth = PrecomputedBoxes(str(folder / "boxes.jsonl"))
    found = PrecomputedBoxes(str(tmp_path / "out/boxes.jsonl"))
    names = sorted(path.name for path in (folder / "train").glob("*.png"))
    images = torch.zeros(12, 3, 8, 8)
    for pasted, seen in zip(truth.detect(images, names), found.detect(images, names), strict=True):
        assert len(pasted) == len(seen)
        for a, b in zip(pasted, seen, strict=True):
            assert a.xyxy
            assert b.xyxy
            assert overlap(a.xyxy, b.xyxy) > 0.6
    assert summary["floor"] == {"images": 12, "with a box": 0, "of": str(folder / "clean")}
    label = summary["labels"]["QR code"]
    assert label["images"] == label["boxes"] == summary["with a box"]
    assert 0.1 < label["share of the frame"] < 0.3
    assert Image.open(tmp_path / "out/contact_sheet.png").width > 500


class Watching(pl.LightningModule):
    """Remembers the pictures of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(tuple(batch))
        return self.weight * batch[0].mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def watched(folder: Path, epochs: int, checkpoint: Path | None = None) -> list[tuple[Tensor, ...]]:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, "last")],
    )
    data = PastedConcepts([QRCode()], count=20, resolution=64, batch_size=8, batches=2)
    module = Watching()
    trainer.fit(module, data, ckpt_path=checkpoint)
    return module.seen


@pytest.mark.filterwarnings("ignore")
def test_pasted_concepts_know_their_cells_and_are_new_in_every_epoch(tmp_path: Path) -> None:
    seen = watched(tmp_path / "whole", 2)
    assert len(seen) == 4
    for images, cells in seen:
        assert images.shape == (8, 3, 64, 64)
        assert cells.shape == (8, 1, 8, 8)
        assert 0 < (cells.amax((1, 2, 3)) > 0).sum() < 8
    pictures = torch.cat([images for images, _ in seen])
    assert len(pictures.flatten(1).unique(dim=0)) == 32
    watched(tmp_path / "half", 1)
    resumed = watched(tmp_path / "half", 2, tmp_path / "half/last.ckpt")
    assert torch.equal(torch.cat([images for images, _ in resumed]), pictures[16:])
