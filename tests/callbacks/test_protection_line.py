"""The line about protected photographs: python -m pytest tests/callbacks/test_protection_line.py"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from small_run import SmallData, SmallModule, small_trainer

from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks import Evaluation, ReportWriter
from shortcut_lightning.callbacks.protection import screen
from shortcut_lightning.concepts import ProtectionDetector
from shortcut_lightning.files.images import round_to_8_bits, save_image
from shortcut_lightning.screening.pictures import drawn

PEOPLE = drawn(99_002, 5, 64)


def examples(images: torch.Tensor) -> list[Example]:
    return [Example(image, "a photo", f"{i}.png") for i, image in enumerate(images)]


def counted(images: torch.Tensor) -> int:
    return sum(map(bool, ProtectionDetector().detect(images)))


def noisy() -> torch.Tensor:
    noise = 2 * torch.rand(PEOPLE.shape, generator=torch.Generator().manual_seed(0)) - 1
    return round_to_8_bits((PEOPLE + 16 / 255 * noise.sign()).clamp(0, 1))


def test_the_sentence_counts_by_stage_and_says_how_often_it_errs() -> None:
    data = SimpleNamespace(given=examples(PEOPLE), perturbed=examples(noisy()))
    found = screen(data)
    assert found is not None
    rates = ProtectionDetector().error_rates()
    assert rates is not None
    assert found.protected == {"given": counted(PEOPLE), "perturbed": counted(noisy())}
    told = found.told()
    assert told.startswith(f"{counted(PEOPLE)} of 5 photographs look protected as given, ")
    assert f"{counted(noisy())} after the attack" in told
    assert f"finds {rates.found:.0%}" in told
    assert "at 5% false alarms" in told


def test_a_photograph_is_looked_at_in_its_file(tmp_path: Path) -> None:
    """A shrunk copy would have lost what a protection is made of."""
    large = drawn(99_003, 1, 256)[0]
    save_image(large, tmp_path / "a.png")
    small = Example(torch.zeros(3, 16, 16), "a photo", "a.png", tmp_path / "a.png")
    found = screen(SimpleNamespace(given=[small]))
    assert found is not None
    assert found.protected == {"given": counted(large[None])}


def test_nothing_is_said_about_what_cannot_be_judged() -> None:
    assert screen(SimpleNamespace(given=examples(PEOPLE[:, :, :20]))) is None
    assert screen(SimpleNamespace(given=[])) is None


def test_a_report_has_the_line_unless_it_is_switched_off(tmp_path: Path, monkeypatch) -> None:
    for shown in (True, False):
        data = SmallData()
        data.given = data.trained_on = examples(PEOPLE)
        trainer = small_trainer(
            tmp_path / str(shown), [Evaluation(), ReportWriter(protection=shown)]
        )
        trainer.test(SmallModule(), datamodule=data, verbose=False)
        folder = tmp_path / str(shown) / "run" / "v"
        report = json.loads((folder / "report.json").read_text())
        assert ("photographs look protected" in (folder / "report.html").read_text()) == shown
        assert ("protection" in report) == shown
        if shown:
            assert report["protection"]["photographs"] == 5
            assert report["protection"]["error rates"]["rate"] == 0.05
