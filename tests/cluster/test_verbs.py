"""The verbs on Ray end in the bits of one process: python -m pytest tests/cluster -m slow"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from shortcut_lightning.cli import main
from shortcut_lightning.files.images import save_image

CONFIGS = Path(__file__).parents[2] / "configs"
ON_RAY = ["--engine", "ray", "--workers", "2"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of two shapes, some larger than what is learned of them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        side = 96 if number % 2 else 64
        picture = Image.effect_noise((side, 80), 40 + number).convert("RGB")
        picture.save(folder / f"{number}.png")
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder that a verb wrote, by name."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def both(verb: str, tmp_path: Path, *words: str) -> dict[str, bytes]:
    """What a verb writes on Ray, once it was compared with what it writes in one process."""
    written = []
    for name, engine in (("local", []), ("ray", ON_RAY)):
        out = tmp_path / f"{verb}-{name}"
        cache = f"--data.cache_dir={tmp_path / f'cache-{name}'}"
        main([verb, *words, cache, "--output", str(out), *engine])
        written.append(bytes_of(out))
    assert written[0].keys() == written[1].keys()
    assert [name for name in written[0] if written[0][name] != written[1][name]] == []
    return written[1]


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
class TestOnRay:
    @pytest.fixture
    def args(self, photos: Path) -> list[str]:
        return [
            "--model=DreamBooth",
            "--model.pretrained_model_name_or_path=pocket",
            "--data=PersonalizationDataModule",
            f"--data.instance_data_dir={photos}",
            "--data.instance_prompt=a photo of a man",
            "--data.sample_batch_size=2",
            "--trainer.accelerator=cpu",
        ]

    def test_detect(self, args: list[str], photos: Path, tmp_path: Path) -> None:
        kind = f"--data.detector={CONFIGS}/detectors/qr.yaml"
        found = both("detect", tmp_path, *args, kind, f"--clean_data_dir={photos}")
        assert len(found["boxes.jsonl"].splitlines()) == 5

    @pytest.mark.parametrize("attack", ["advdm", "aspl"])
    def test_protect(self, args: list[str], tmp_path: Path, attack: str) -> None:
        kind = f"--data.attack={CONFIGS}/attacks/pocket/{attack}.yaml"
        steps = {"advdm": ["--data.attack.steps=2"], "aspl": ["--data.attack.rounds=1"]}
        made = both("protect", tmp_path, *args, kind, *steps[attack])
        assert len([name for name in made if name.endswith(".png")]) == 6

    def test_purify(self, args: list[str], tmp_path: Path) -> None:
        chain = f"--data.purifiers={CONFIGS}/purifiers/code_sr_pocket.yaml"
        both("purify", tmp_path, *args, chain, "--format=jpeg")

    def test_audit(self, tmp_path: Path) -> None:
        generator = torch.Generator().manual_seed(3)
        for part in ("members", "nonmembers"):
            (tmp_path / part).mkdir()
            rows = []
            for number in range(14):
                name = f"{part}{number}.png"
                save_image(torch.rand(3, 64, 64, generator=generator), tmp_path / part / name)
                rows.append(json.dumps({"file_name": name, "text": f"a photo of a man {number}"}))
            (tmp_path / part / "metadata.jsonl").write_text("\n".join(rows))
        words = [
            "--audit.target.pretrained_model_name_or_path=pocket",
            f"--audit.members={tmp_path / 'members'}",
            f"--audit.nonmembers={tmp_path / 'nonmembers'}",
            "--audit.compute.images_per_chunk=5",
            "--audit.statistics.resamples=100",
            "--audit.dataset=false",
            "--audit.controls.captions=false",
            "--audit.controls.blind=false",
        ]
        for name, engine in (("local", []), ("ray", ON_RAY)):
            main(["audit", *words, "--output", str(tmp_path / name), *engine])
        scores = [(tmp_path / name / "scores.csv").read_bytes() for name in ("local", "ray")]
        assert scores[0] == scores[1]
        facts: list[dict[str, Any]] = [
            json.loads((tmp_path / name / "report.json").read_text()) for name in ("local", "ray")
        ]
        assert facts[0]["scores"] == facts[1]["scores"]
