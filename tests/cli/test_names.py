"""Names that are not UTF-8 work, or are refused before anything is done: pytest this file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from shortcut_lightning.cli import main

Mistake = Callable[..., str]
ODD = os.fsdecode(b"odd\xff")


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("fit", "--data.instance_data_dir"),
        ("fit", "--output_dir"),
        ("fit", "--name"),
        ("fit", "--model.pretrained_model_name_or_path"),
        ("fit", "--data.instance_prompt"),
        ("predict", "--ckpt_path"),
        ("protect", "--config"),
        ("detect", "--data.cache_dir"),
        ("bench", "--output_dir"),
    ],
)
@pytest.mark.parametrize("joined", [True, False])
def test_a_setting_that_is_not_utf_8(
    verb: str, option: str, joined: bool, mistake: Mistake
) -> None:
    said = mistake(verb, *([f"{option}={ODD}"] if joined else [option, ODD]))
    assert said.startswith(f"error: {option}: 'odd\\xff' is not UTF-8")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("verb", ["protect", "purify", "detect"])
def test_pictures_and_outputs_that_are_not_utf_8(verb: str, small_sd: Path) -> None:
    Path("pictures").mkdir()
    for name in ("a.png", os.fsdecode(b"caf\xe9.png")):
        Image.new("RGB", (40, 40), (90, 60, 30)).save(Path("pictures") / name)
    stage = {
        "protect": "--data.attack=RandomNoise",
        "purify": "--data.purifiers=[Jpeg]",
        "detect": "--data.detector=QRCodeDetector",
    }
    main(
        [
            verb,
            "--model=DreamBooth",
            f"--model.pretrained_model_name_or_path={small_sd}",
            "--data=PersonalizationDataModule",
            "--data.instance_data_dir=pictures",
            "--data.instance_prompt=a photo of sks dog",
            stage[verb],
            "--trainer.accelerator=cpu",
            f"--output={ODD}",
        ]
    )
    written = Path(ODD)
    if verb == "detect":
        assert "caf\\\\xe9.png" in (written / "boxes.jsonl").read_text("utf-8")
    else:
        assert (written / os.fsdecode(b"caf\xe9.png")).is_file()
        assert "caf\\\\xe9.png" in (written / "measured" / "measured.json").read_text("utf-8")
