"""An audit of shards ends where one of folders does: pytest tests/audit/test_streamed.py"""

import csv
import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shortcut_lightning.audit import streamed_looks
from shortcut_lightning.audit.audit import Audit
from shortcut_lightning.audit.blind import blind_baselines
from shortcut_lightning.audit.loading import AuditedModel
from shortcut_lightning.audit.result import AuditResult
from shortcut_lightning.audit.settings import Asking, Controls, Statistics
from shortcut_lightning.files.images import load_image, save_image
from shortcut_lightning.membership import CLiDThreshold, NullOnly, read_pictures
from shortcut_lightning.metrics.encoders import PocketClip

pytest.importorskip("pyarrow", reason="needs the extra cluster")
COUNT = 12


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Two sets, each as a folder and as two shards of the same pictures."""
    generator = torch.Generator().manual_seed(3)
    for part in ("members", "nonmembers"):
        folder, shards, rows = tmp_path / part, tmp_path / f"{part}-shards", []
        folder.mkdir()
        shards.mkdir()
        for number in range(COUNT):
            name, caption = f"{part}{number:02d}.png", f"a photo of dog {number}"
            save_image(torch.rand(3, 32, 32, generator=generator), folder / name)
            rows.append(json.dumps({"file_name": name, "text": caption}))
            with tarfile.open(shards / f"{number // 7}.tar", "a") as archive:
                archive.add(folder / name, name)
                member = tarfile.TarInfo(name.replace(".png", ".txt"))
                member.size = len(caption)
                archive.addfile(member, io.BytesIO(caption.encode()))
        (folder / "metadata.jsonl").write_text("\n".join(rows))
    return tmp_path


def audited(
    sets: Path, model: Path, suffix: str, blind: bool = False, **settings: Any
) -> AuditResult:
    audit = Audit(
        AuditedModel(str(model)),
        str(sets / f"members{suffix}"),
        str(sets / f"nonmembers{suffix}"),
        base=settings.pop("base", AuditedModel(str(model))),
        scores={"CLiD_th": CLiDThreshold(n_t=1, reducer=NullOnly())},
        controls=Controls(blind=blind, captions=False),
        dataset=False,
        statistics=Statistics(resamples=100),
        compute=Asking(images_per_chunk=5, device="cpu"),
        **settings,
    )
    return audit.run(sets / f"out{suffix}")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_audit_of_shards_is_that_of_the_folders(sets: Path, small_sd: Path) -> None:
    folder, shards = (audited(sets, small_sd, suffix) for suffix in ("", "-shards"))
    for part in (0, 1):
        np.testing.assert_allclose(
            folder.judged["CLiD_th"].scores[part], shards.judged["CLiD_th"].scores[part], rtol=1e-3
        )
    assert shards.judged["CLiD_th"].base is not None
    assert "folders of some thousand pictures" in shards.left_out[0]
    found = rows(sets / "out-shards")
    assert len(found) == COUNT
    assert [*found[0]] == ["name", "key", "set", "flagged", "CLiD_th"]
    for result in (folder, shards):
        assert "Baselines without a model were turned off" in " ".join(result.warnings)
        assert not [each for each in result.warnings if each.startswith("No base model")]
    assert (sets / "out-shards" / "report.html").is_file()


def test_the_page_has_a_head_for_every_cell_and_the_baselines(sets: Path, small_sd: Path) -> None:
    result = audited(sets, small_sd, "-shards", blind=True, base=AuditedModel())
    page = (sets / "out-shards" / "report.html").read_text()
    head, row, *_ = re.findall(r"<tr>.*?</tr>", page[page.index("Scores</h2>") :], re.S)
    assert head.count("<th ") == row.count("<td ") > 5
    for shown in ("Controls</h2>", "blind: image statistics", "calls of the denoiser for one"):
        assert shown in page
    assert result.seconds["in all"] > 0
    assert any(each.startswith("No base model (audit.base)") for each in result.warnings)
    with pytest.raises(ValueError, match=r"audit\.features is kept, which audits of folders share"):
        audited(sets, small_sd, "-shards", features="kept")


def test_a_folder_beside_shards_has_its_captions(sets: Path, small_sd: Path) -> None:
    shutil.rmtree(sets / "nonmembers-shards")
    (sets / "nonmembers").rename(sets / "nonmembers-shards")
    result = audited(sets, small_sd, "-shards")
    assert not [each for each in result.warnings if "left out:" in each]
    assert result.judged["CLiD_th"].plain.n_holdouts == COUNT // 2


def test_a_set_without_a_picture_is_named(sets: Path, small_sd: Path) -> None:
    shutil.rmtree(sets / "nonmembers-shards")
    (sets / "nonmembers-shards").mkdir()
    with tarfile.open(sets / "nonmembers-shards" / "0.tar", "w") as archive:
        archive.add(sets / "members" / "metadata.jsonl", "metadata.jsonl")
    with pytest.raises(ValueError, match=r"audit\.nonmembers is '.*-shards', .* no picture"):
        audited(sets, small_sd, "-shards")


def test_what_cannot_be_read_and_what_is_in_both_sets_is_named(sets: Path, small_sd: Path) -> None:
    (sets / "bad.png").write_bytes(b"nothing")
    with tarfile.open(sets / "members-shards" / "2.tar", "w") as archive:
        archive.add(sets / "bad.png", "bad.png")
        archive.add(sets / "members" / "members00.png", "mute.png")
    result = audited(sets, small_sd, "-shards")
    said = " ".join(result.warnings)
    assert "bad.png cannot be read" in said
    assert "mute.png has no caption, which CLiD_th needs" in said
    names = {each["name"]: each["key"] for each in rows(sets / "out-shards")}
    pictures, _ = read_pictures(sets / "members", "members", 32)
    keys = {each.name: f"{each.key:016x}" for each in pictures}
    judged = {name: key for name, key in names.items() if name in keys}
    assert len(judged) == COUNT // 2
    assert judged == {name: keys[name] for name in judged}
    with tarfile.open(sets / "nonmembers-shards" / "2.tar", "w") as archive:
        archive.add(sets / "members" / "members00.png", "copy.png")
        archive.add(sets / "bad.png", "copy.txt")
    with pytest.raises(ValueError, match=r"nonmembers already holds something .* did not make"):
        audited(sets, small_sd, "-shards")
    shutil.rmtree(sets / "out-shards")
    with pytest.raises(ValueError, match=r"1 images are in both audit\.members and"):
        audited(sets, small_sd, "-shards")


def test_baselines_and_near_copies_are_those_of_folders(sets: Path, small_sd: Path) -> None:
    for name, of in (("copy.png", 0), ("mirrored.png", 1)):
        image = load_image(sets / "members" / f"members{of:02d}.png") * 0.9
        for folder in ("nonmembers", "nonmembers-shards"):
            save_image(image.flip(-1) if of else image, sets / folder / name)
    with (sets / "nonmembers" / "metadata.jsonl").open("a") as file:
        for name in ("copy.png", "mirrored.png"):
            file.write("\n" + json.dumps({"file_name": name, "text": f"a photo of dog {name}"}))
    with tarfile.open(sets / "nonmembers-shards" / "2.tar", "a") as archive:
        for name in ("copy.png", "mirrored.png"):
            archive.add(sets / "nonmembers-shards" / name, name)
            caption = f"a photo of dog {name}".encode()
            member = tarfile.TarInfo(name.replace(".png", ".txt"))
            member.size = len(caption)
            archive.addfile(member, io.BytesIO(caption))
            (sets / "nonmembers-shards" / name).unlink()
    folder, shards = (audited(sets, small_sd, suffix, blind=True) for suffix in ("", "-shards"))
    said = " ".join(shards.warnings)
    assert "2 pairs of audit.members and audit.nonmembers are near-copies" in said
    assert "members00.png and copy.png" in said
    assert "members01.png and mirrored.png" in said
    assert sum("near-copies" in warning for warning in folder.warnings) == 2
    assert [each.name for each in shards.blind] == [each.name for each in folder.blind]
    assert len(shards.blind) >= 3  # the files may be of one size
    # Folders and shards draw other halves to judge, so that values are compared on the same rows.
    table = streamed_looks.read(sets / "out-shards" / "measured" / "members")
    rows = np.arange(COUNT)
    found = streamed_looks.blind_of([(table, rows), (table, rows)], 0, "pocket-clip")
    pictures, _ = read_pictures(sets / "members", "members", 32)
    wanted = blind_baselines(pictures, pictures, 0, PocketClip())
    for one, other in zip(found, wanted, strict=True):
        assert one.name == other.name
        assert one.auc == pytest.approx(other.auc, abs=0.1 if one.name == "captions" else 0.02)
