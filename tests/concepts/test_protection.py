"""The detector of protections: python -m pytest tests/concepts/test_protection.py"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.attacks import AdvDM
from shortcut_lightning.concepts import ProtectionDetector
from shortcut_lightning.concepts.noise_statistics import statistics
from shortcut_lightning.concepts.protection import RATES, ProtectionNetwork, judged
from shortcut_lightning.files.folders import list_images
from shortcut_lightning.files.images import load_image, shrunk
from shortcut_lightning.screening.pictures import drawn

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "dreambooth"


@pytest.fixture(scope="module")
def people() -> Tensor:
    """(40, 3, 64, 64) whom no training and no card has seen."""
    return drawn(99_001, 40, 64)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 64), (256, 256), (300, 700)])
def test_every_size_has_the_same_statistics(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    found = statistics(images)
    assert found.shape == (2, ProtectionDetector().network.config["features"])
    assert found.isfinite().all()
    assert torch.allclose(found[1:], statistics(images[1:]), atol=1e-4)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_one_colour_has_numbers_too(level: float) -> None:
    assert statistics(torch.full((1, 3, 40, 40), level)).isfinite().all()


def test_clean_people_raise_few_alarms(people: Tensor) -> None:
    alarms = [sum(map(bool, ProtectionDetector(false_alarms=r).detect(people))) for r in RATES]
    assert alarms == sorted(alarms)
    assert alarms[0] <= 2
    assert alarms[2] <= 7


def test_a_protection_is_found_and_has_no_place(people: Tensor) -> None:
    """Of an attack with other settings than those it was trained on."""
    model = backbones.load("pocket")
    prompts, chance = ["a photo of a person"] * 4, torch.Generator().manual_seed(0)
    protected = AdvDM(epsilon=14, steps=9, step_size=3)(
        people[:4], model, prompts, generator=chance
    )
    boxes = [found for found in ProtectionDetector().detect(protected) if found]
    assert len(boxes) >= 3
    for (box,) in boxes:
        assert box.label == "protection"
        assert box.xyxy is None
        assert 0 < box.score < 1


def test_a_border_hides_nothing_and_grey_is_not_judged(people: Tensor) -> None:
    model = backbones.load("pocket")
    prompts, chance = ["a photo of a person"] * 4, torch.Generator().manual_seed(0)
    protected = AdvDM(epsilon=14, steps=9, step_size=3)(
        people[:4], model, prompts, generator=chance
    )
    detector = ProtectionDetector()
    for sides, colour in (([6] * 4, 1.0), ([0, 0, 20, 20], 0.0)):
        framed = torch.nn.functional.pad(protected, sides, value=colour)
        assert sum(map(bool, detector.detect(framed))) >= 3
    grey = protected.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert detector.scores(grey).isnan().all()
    assert detector.detect(grey) == [[]] * 4
    # On what the card is measured on nothing is left out.
    assert all(torch.equal(judged(each), each) for each in people)
    assert judged(torch.full((3, 64, 64), 0.5)) is None


def test_what_is_too_small_is_not_judged() -> None:
    detector = ProtectionDetector()
    assert detector.detect(torch.rand(2, 3, 31, 90)) == [[], []]
    assert detector.scores(torch.rand(2, 3, 90, 31)).isnan().all()
    assert detector.detect(torch.rand(0, 3, 64, 64)) == []


def test_thresholds_rise_as_fewer_alarms_are_allowed() -> None:
    network = ProtectionDetector().network
    limits = [network.threshold(rate) for rate in (0.01, 0.015, 0.02, 0.03, 0.05, 0.2)]
    assert limits == sorted(limits, reverse=True)
    at = [network.threshold(rate) for rate in RATES]
    assert at == pytest.approx(network.thresholds.tolist(), abs=1e-5)


def test_error_rates_come_from_the_card(tmp_path: Path) -> None:
    rates = ProtectionDetector().error_rates()
    assert rates is not None
    assert rates.rate == 0.05
    assert 0 < rates.least <= rates.found < 1
    strict = ProtectionDetector(false_alarms=0.01).error_rates()
    assert strict is not None
    assert strict.found < rates.found
    ProtectionDetector().network.save(tmp_path)
    assert ProtectionDetector(str(tmp_path)).error_rates() is None


def test_a_network_comes_back_from_its_folder(tmp_path: Path, people: Tensor) -> None:
    shipped = ProtectionDetector()
    shipped.network.save(tmp_path)
    kept = ProtectionDetector(str(tmp_path))
    assert torch.equal(kept.scores(people[:3]), shipped.scores(people[:3]))
    assert kept.version == shipped.version
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2e6


def test_other_weights_are_another_version(tmp_path: Path) -> None:
    """Else boxes of the old ones would be taken from the cache."""
    shipped = ProtectionDetector()
    other = ProtectionNetwork(**shipped.network.config)
    other.save(tmp_path)
    assert ProtectionDetector(str(tmp_path)).version != shipped.version


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No trained detector of protections in .*detector\.path"):
        ProtectionDetector(str(tmp_path)).detect(torch.rand(1, 3, 64, 64))
    (tmp_path / "config.json").write_text(json.dumps({"colour": 3}))
    with pytest.raises(ValueError, match=r"does not describe a ProtectionNetwork"):
        ProtectionDetector(str(tmp_path)).detect(torch.rand(1, 3, 64, 64))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not here")
def test_real_photographs_raise_few_alarms() -> None:
    photographs = [shrunk(load_image(path), 256) for path in list_images(PHOTOS, "photos", True)]
    alarms = [ProtectionDetector().detect(each[None])[0] for each in photographs]
    assert sum(map(bool, alarms)) <= 3
