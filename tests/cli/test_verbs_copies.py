"""The verbs `protect` and `purify`: python -m pytest tests/cli/test_verbs_copies.py"""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from shortcut_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def args(small_sd: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "photos").mkdir()
    Image.effect_noise((40, 56), 60).convert("RGB").save(tmp_path / "photos" / "me.jpg")
    return [
        "--model=DreamBooth",
        f"--model.pretrained_model_name_or_path={small_sd}",
        "--data=PersonalizationDataModule",
        f"--data.instance_data_dir={tmp_path / 'photos'}",
        "--trainer.accelerator=cpu",
    ]


def test_protect_then_purify(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = [
        f"--data.attack={CONFIGS / 'attacks' / 'random_noise.yaml'}",
        "--data.attack.epsilon=8",
    ]
    main(["protect", *args, *attack, "--output", str(tmp_path / "safe")])
    out = capsys.readouterr().out
    assert "me.png" in out
    assert "L-inf /255" in out
    with Image.open(tmp_path / "safe" / "me.png") as copy:
        assert copy.size == (40, 56)
    chain = f"--data.purifiers={CONFIGS / 'purifiers' / 'resize_jpeg.yaml'}"
    again = f"--data.instance_data_dir={tmp_path / 'safe'}"
    main(["purify", *args, again, chain, "--output", str(tmp_path / "clean"), "--format", "jpeg"])
    assert (tmp_path / "clean" / "me.jpg").is_file()
    assert not list(tmp_path.glob("runs/**/*"))


def test_mistakes_cost_a_line(args: list[str], mistake: Callable[..., str], tmp_path: Path) -> None:
    assert "data.attack is not set" in mistake("protect", *args, "--output", str(tmp_path / "x"))
    assert "output" in mistake("protect", *args)
    assert "format" in mistake("purify", *args, "--output=x", "--format=gif")
