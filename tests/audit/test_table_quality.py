"""What pictures of audited models are worth: pytest tests/audit/test_table_quality.py"""

import json
from pathlib import Path

import pytest
import torch

from shortcut_lightning.audit.table_quality import Drawing, PictureQuality, measured
from shortcut_lightning.files import csv_rows
from shortcut_lightning.files.images import save_image


def write_run(folder: Path, name: str, seed: int) -> None:
    """A finished run of `test` with four pictures of two captions."""
    run = folder / "quality" / name / "version_0"
    pictures = run / "samples/tuned"
    pictures.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    lines = []
    for number in range(4):
        save_image(torch.rand(3, 64, 64, generator=generator), pictures / f"{number:05d}.png")
        text = f"a photo of a person in the {['snow', 'forest'][number // 2]}"
        lines.append({"file_name": f"{number:05d}.png", "text": text, "seed": number})
    (pictures / "metadata.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    told = {"value": 0.25, "low": 0.125, "high": 0.5, "n": 4}
    keys = ("kid_pocket", "fid_pocket", "clip_t", "quality_pocket")
    metrics = {f"eval/{key}": told for key in keys}
    (run / "report.json").write_text(json.dumps({"metrics": metrics}))


def test_every_picture_is_measured_and_kept(tmp_path: Path) -> None:
    for name, seed in (("full20-0", 0), ("u-shaped20-0", 1)):
        write_run(tmp_path, name, seed)
    PictureQuality(tmp_path).keep(tmp_path / "rows")
    rows = csv_rows.read(tmp_path / "rows/pictures.csv", Drawing)
    assert [row.name for row in rows] == ["full20-0"] * 4 + ["u-shaped20-0"] * 4
    assert rows == [
        *measured(tmp_path / "quality/full20-0/version_0"),
        *measured(tmp_path / "quality/u-shaped20-0/version_0"),
    ]
    assert len({row.caption for row in rows}) == 2
    assert all(0 <= row.quality_pocket <= 1 for row in rows)
    kept = PictureQuality(tmp_path / "rows")
    mean = sum(sign * row.clip_t for sign, row in zip([-1] * 4 + [1] * 4, rows, strict=True)) / 4
    told = kept.paired("u-shaped20", "full20")
    assert f"| CLIP-T | {mean:+.3f} (" in told
    assert kept.table() == PictureQuality(tmp_path).table()


def test_differences_are_of_one_caption_and_one_seed(tmp_path: Path) -> None:
    rows = [
        Drawing(f"{kind}-{training}", f"caption{number}", number, 0.1 * number + change, 0.5)
        for kind, change in (("full20", 0.0), ("u-shaped20", 0.01))
        for training in range(2)
        for number in range(8)
    ]
    csv_rows.write(tmp_path / "pictures.csv", [*rows, Drawing("full20-0", "alone", 9, 5.0, 1.0)])
    told = PictureQuality(tmp_path).paired("u-shaped20", "full20")
    assert "| CLIP-T | +0.010 (+0.010 to +0.010) | higher |" in told
    assert "| quality | +0.000 (+0.000 to +0.000) | not told apart |" in told
    assert PictureQuality(tmp_path).paired("full20", "nothing") == ""


@pytest.mark.parametrize("there", [False, True])
def test_without_pictures_there_is_nothing_to_pair(tmp_path: Path, there: bool) -> None:
    if there:
        write_run(tmp_path, "full20-0", 0)
        (tmp_path / "quality/full20-0/version_0/samples/tuned/metadata.jsonl").unlink()
    PictureQuality(tmp_path).keep(tmp_path / "rows")
    assert not (tmp_path / "rows/pictures.csv").exists()
    assert PictureQuality(tmp_path / "rows").paired("u-shaped20", "full20") == ""
