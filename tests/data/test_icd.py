"""An archive in the image-folder layout: python -m pytest tests/data/test_icd.py"""

import io
import json
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

from shortcut_lightning.data.icd import unpack_icd
from shortcut_lightning.files.folders import read_folder


def test_images_and_captions_come_out_as_a_folder(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "PNG")
    with ZipFile(tmp_path / "ICD.zip", "w") as archive:
        for name in ("ICD-QR/a.png", "ICD-QR/b.png", "ICD-Text/c.png", "../../evil.png"):
            archive.writestr(name, picture.getvalue())
        rows = [{"file_name": "a.png", "text": "a robin"}, {"file_name": "b.png", "text": "a fox"}]
        archive.writestr("ICD-QR/metadata.jsonl", "\n".join(map(json.dumps, rows)))
        archive.writestr("ICD-Text/c.txt", "a poster\n")
    counts = unpack_icd(str(tmp_path / "ICD.zip"), str(tmp_path / "out"))
    assert counts == {"ICD-QR": 2, "ICD-Text": 1}
    found = read_folder(tmp_path / "out/ICD-QR", "instance_data_dir", captions=True)
    assert [entry.text for entry in found] == ["a robin", "a fox"]
    found = read_folder(tmp_path / "out/ICD-Text", "instance_data_dir", captions=True)
    assert [entry.text for entry in found] == ["a poster"]
    assert "no licence" in (tmp_path / "out/NOTICE.txt").read_text()
    assert not (tmp_path / "evil.png").exists()


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ValueError, match="cannot be read as a zip file"):
        unpack_icd(str(tmp_path / "text.zip"), str(tmp_path / "out"))
    with ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.md", "")
    with pytest.raises(ValueError, match="holds no image"):
        unpack_icd(str(tmp_path / "empty.zip"), str(tmp_path / "out"))
