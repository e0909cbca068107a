"""The verbs `protect` and `purify`: python -m pytest tests/cli/test_verbs_copies.py"""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from shortcut_lightning.cli import main
from shortcut_lightning.files import images

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


def test_every_picture_is_protected_or_named(
    args: list[str],
    mistake: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos = tmp_path / "photos"
    for name in ("a.avif", "b.jp2", "c.tga", "holiday/me.png", "IMG_1.HEIC", "raw.nef"):
        (photos / name).parent.mkdir(exist_ok=True)
        if Path(name).suffix in (".HEIC", ".nef"):
            (photos / name).touch()
        else:
            Image.linear_gradient("L").resize((40, 32)).convert("RGB").save(photos / name)
    monkeypatch.setattr(images, "_reads_heif", lambda: False)
    noise = f"--data.attack={CONFIGS / 'attacks' / 'random_noise.yaml'}"
    command = ["protect", *args, noise, "--output", str(tmp_path / "safe")]
    assert "IMG_1.HEIC is HEIC, which needs the extra heif" in mistake(*command)
    (photos / "IMG_1.HEIC").unlink()
    for recursive, more in ((False, []), (True, ["holiday/me.png"])):
        main([*command, f"--data.recursive={recursive}", "--overwrite=true"])
        out = capsys.readouterr().out
        copies = [path for path in (tmp_path / "safe").rglob("*.png") if path.parent.name[0] != "m"]
        written = sorted(path.relative_to(tmp_path / "safe").as_posix() for path in copies)
        assert written == ["a.png", "b.png", "c.png", *more, "me.png"]
        assert "No copy was made of:" in out
        assert "raw.nef (a camera's raw file" in out
        assert ("holiday/ (a subfolder, read with --data.recursive true)" in out) is not recursive
    inside = ["--data.recursive=true", "--output", str(photos / "safe")]
    assert "lies in the folder of the photographs" in mistake(*command[:-2], *inside)


def test_mistakes_cost_a_line(args: list[str], mistake: Callable[..., str], tmp_path: Path) -> None:
    assert "data.attack is not set" in mistake("protect", *args, "--output", str(tmp_path / "x"))
    assert "output" in mistake("protect", *args)
    assert "format" in mistake("purify", *args, "--output=x", "--format=gif")
