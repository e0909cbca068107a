"""A disk that is full or read-only ends in one line with the path, and nothing half-written counts:
python -m pytest tests/cli/test_full_disk.py."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from shortcut_lightning.cli import main
from shortcut_lightning.files import atomic

FULL = Path("/dev/full")  # takes no byte: what is written there fails as on a full disk
PROMPT = "a photo of sks dog"
Failure = Callable[..., str]

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def no_room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From here on the disk is full for whole files of a name."""

    def fill(name: str) -> None:
        half_of = atomic.half_of

        def full(path: Path) -> Path:
            half = half_of(path)
            if path.name == name:
                half.symlink_to(FULL)
            return half

        monkeypatch.setattr(atomic, "half_of", full)

    return fill


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str]) -> Failure:
    """Runs a command line that must end with exit code 1; returns the line that it said."""

    def run(*args: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(args))
        said = capsys.readouterr().err
        assert ended.value.code == 1, said
        assert "Traceback" not in said
        line = said[said.index("error: ") :].strip()
        assert "\n" not in line
        return line

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (40, 40), (90, 60 * number, 30)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def recipe(small_sd: Path, pictures: Path) -> list[str]:
    return [
        "--model=DreamBooth",
        f"--model.pretrained_model_name_or_path={small_sd}",
        "--model.sampling.num_inference_steps=1",
        "--data=PersonalizationDataModule",
        f"--data.instance_data_dir={pictures}",
        f"--data.instance_prompt={PROMPT}",
        "--data.class_prompt=a photo of a dog",
        "--data.evaluation.images_per_prompt=1",
        f"--data.evaluation.prompts=[{PROMPT}]",
        "--trainer.accelerator=cpu",
        "--trainer.max_steps=1",
        "--trainer.enable_progress_bar=false",
    ]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may get larger, as under a quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def halves(folder: Path) -> list[Path]:
    return [*folder.rglob("*.part")]


@pytest.mark.parametrize(
    "name", ["last.ckpt", "00000.png", "metadata.jsonl", "grid.png", "report.json", "report.html"]
)
def test_of_a_training(
    name: str, recipe: list[str], no_room_for: Callable[[str], None], failure: Failure
) -> None:
    callbacks = ["Evaluation", "SampleGrid", "ReportWriter"]
    no_room_for(name)
    said = failure("fit", *recipe, *(f"--trainer.callbacks+={each}" for each in callbacks))
    assert "No space left on device" in said
    assert name in said
    assert not [*Path("runs").rglob(name)]
    assert not halves(Path("runs"))


def test_of_an_export(recipe: list[str], monkeypatch: pytest.MonkeyPatch, failure: Failure) -> None:
    from shortcut_lightning.backbones import stable_diffusion

    def save_pretrained(self: object, folder: Path, **options: object) -> None:
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "weights").symlink_to(FULL)
        (folder / "unet" / "weights").write_bytes(b"weights")

    monkeypatch.setattr(
        stable_diffusion.StableDiffusionPipeline, "save_pretrained", save_pretrained
    )
    args = ["--trainer.callbacks+=Export", "--trainer.enable_checkpointing=false"]
    said = failure("fit", *recipe, *args)
    assert "No space left on device: 'runs/run/version_0/export'" in said
    assert not [*Path("runs").rglob("export*")]
    assert not halves(Path("runs"))


def test_of_the_numbers_that_lightning_writes(recipe: list[str], failure: Failure) -> None:
    run = Path("logs/mine/version_0")
    run.mkdir(parents=True)
    (run / "metrics.csv").symlink_to(FULL)
    logger = {"save_dir": "logs", "name": "mine", "version": "0"}
    args = [f"--trainer.logger.{key}={value}" for key, value in logger.items()]
    more = ["--trainer.log_every_n_steps=1", "--trainer.enable_checkpointing=false"]
    said = failure("fit", *recipe, "--trainer.logger=CSVLogger", *args, *more)
    assert said == f"error: No space left on device, in {run}"


def test_of_the_configuration_that_lightning_writes(recipe: list[str], failure: Failure) -> None:
    with files_up_to(1000):
        said = failure("fit", *recipe)
    assert said == "error: File too large, in runs/run/version_0"


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("predict", "00000.png"),
        ("predict", "metadata.jsonl"),
        ("protect", "0.png"),
        ("protect", "measured.json"),
        ("purify", "contact_sheet.png"),
        ("detect", "boxes.jsonl"),
        ("detect", "contact_sheet.png"),
        ("detect", "summary.json"),
    ],
)
def test_of_other_verbs(
    verb: str,
    name: str,
    recipe: list[str],
    no_room_for: Callable[[str], None],
    failure: Failure,
) -> None:
    more = {
        "predict": [f"--data.evaluation.predict_prompts=[{PROMPT}]"],
        "protect": ["--data.attack=RandomNoise", "--output=out"],
        "purify": ["--data.purifiers=[Jpeg]", "--output=out"],
        "detect": ["--data.detector=QRCodeDetector", "--output=out"],
    }
    no_room_for(name)
    said = failure(verb, *recipe, *more[verb])
    assert "No space left on device" in said
    assert name in said
    assert not [*Path("out").rglob(name), *Path("runs").rglob(name)]
    assert not halves(Path())


@pytest.mark.parametrize("name", ["report.json", "scores.csv", "report.html"])
def test_of_an_audit(
    name: str,
    small_sd: Path,
    pictures: Path,
    no_room_for: Callable[[str], None],
    failure: Failure,
) -> None:
    for folder in ("members", "nonmembers"):
        for number in range(12):
            Path(folder).mkdir(exist_ok=True)
            colour = (20 * number, 99, 7 * len(folder))
            Image.new("RGB", (40, 40), colour).save(f"{folder}/{number}.png")
    no_room_for(name)
    said = failure(
        "audit",
        f"--audit.target.pretrained_model_name_or_path={small_sd}",
        "--audit.members=members",
        "--audit.nonmembers=nonmembers",
        "--audit.caption=a photo of a dog",
        "--audit.scores={loss: {class_path: Loss}}",
        "--audit.dataset=false",
        "--audit.controls.blind=false",
        "--audit.controls.captions=false",
        "--audit.statistics.resamples=100",
        "--audit.compute.device=cpu",
        "--output=out",
    )
    assert f"No space left on device: 'out/{name}'" in said
    assert not (Path("out") / name).exists()
    assert not halves(Path("out"))


def test_what_writers_of_others_say_of_a_disk_is_understood(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "a"
    with files_up_to(1000):
        for write in (
            lambda: torch.save(torch.zeros(10**6), file),
            lambda: save_file({"a": torch.zeros(10**6)}, file),
            lambda: file.write_text("a" * 2000),
        ):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                write()
            assert atomic.disk_error(caught.value) is not None, repr(caught.value)
            with pytest.raises(OSError, match=str(tmp_path / "b")), atomic.atomic(tmp_path / "b"):
                write()
    assert not (tmp_path / "b").exists()
    assert atomic.disk_error(ValueError("a word")) is None
    assert atomic.disk_error(FileNotFoundError(2, os.strerror(2))) is None
