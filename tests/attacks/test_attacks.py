"""What single attacks do beyond the promises of all: python -m pytest tests/attacks"""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_model import FakeBackbone
from PIL import Image
from torch import Tensor

from shortcut_lightning.attacks import PhotoGuardEncoder, RandomNoise, pictures

GREY = torch.full((1, 3, 32, 32), 128 / 255)


def attacked(attack: PhotoGuardEncoder | RandomNoise, images: Tensor = GREY) -> Tensor:
    return attack(
        images,
        FakeBackbone(),
        ["a photo"] * len(images),
        generator=torch.Generator().manual_seed(0),
    )


def test_uniform_noise_is_uniform() -> None:
    levels = ((attacked(RandomNoise(10)) - GREY) * 255).round().flatten()
    counts = torch.stack([(levels == level).sum() for level in range(-9, 10)]) / len(levels)
    torch.testing.assert_close(counts, torch.full((19,), 1 / 20), atol=0.015, rtol=0)
    assert levels.abs().max() == 10


def test_sign_noise_takes_the_whole_budget_in_both_directions() -> None:
    levels = ((attacked(RandomNoise(10, sign=True)) - GREY) * 255).round()
    assert set(levels.flatten().tolist()) == {-10, 10}
    assert abs((levels > 0).float().mean() - 0.5) < 0.05


def test_a_fractional_budget_is_rounded_down() -> None:
    levels = ((attacked(RandomNoise(7.65, sign=True)) - GREY) * 255).round()
    assert levels.abs().max() == 7


def latents(images: Tensor) -> Tensor:
    return FakeBackbone().eval().encode(images).mean


def test_photoguard_brings_latents_to_zero() -> None:
    images = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255
    before, after = latents(images), latents(attacked(PhotoGuardEncoder(32, steps=60), images))
    noise = latents(attacked(RandomNoise(32), images))
    assert (after.flatten(1).norm(dim=1) < 0.7 * before.flatten(1).norm(dim=1)).all()
    assert (after.flatten(1).norm(dim=1) < noise.flatten(1).norm(dim=1)).all()


def test_photoguard_brings_latents_to_the_target(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (250, 20, 60)).save(tmp_path / "target.png")
    goal = latents(torch.tensor([250, 20, 60]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32) / 255)
    out = attacked(PhotoGuardEncoder(32, steps=60, target=str(tmp_path / "target.png")))
    assert (latents(out) - goal).norm() < 0.8 * (latents(GREY) - goal).norm()


def test_photoguard_steps_shrink_to_a_hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def record(images: Tensor, loss: object, *, step_sizes: list[float], **_: object) -> Tensor:
        seen.extend(step_sizes)
        return images

    monkeypatch.setattr("shortcut_lightning.attacks.photoguard.sign_pgd", record)
    attacked(PhotoGuardEncoder(8, step_size=2.0, steps=4))
    torch.testing.assert_close(torch.tensor(seen), torch.tensor([2.0, 1.505, 1.01, 0.515]))


def test_targets_are_read_as_photographs_are(tmp_path: Path) -> None:
    """16 bits are scaled, what is transparent is white, the middle is taken."""
    Image.fromarray(np.full((8, 24), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    hidden = np.zeros((8, 24, 4), np.uint8)
    hidden[:, 8:16] = (10, 20, 30, 255)
    Image.fromarray(hidden).save(tmp_path / "hidden.png")
    deep = pictures.read(tmp_path / "deep.png", torch.zeros(1, 3, 8, 8))
    assert torch.equal(deep, torch.full((1, 3, 8, 8), 100 / 255))
    middle = pictures.read(tmp_path / "hidden.png", torch.zeros(1, 3, 8, 8))
    assert torch.equal(middle[0, :, 4, 4], torch.tensor([10, 20, 30]) / 255)
    whole = pictures.read(tmp_path / "hidden.png", torch.zeros(1, 3, 8, 24))
    assert torch.equal(whole[0, :, 4, 0], torch.ones(3))


def test_a_damaged_target_is_named(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 60).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    with pytest.raises(ValueError, match=r"cut\.jpg' cannot be read .*\(data\.attack\.target\)"):
        pictures.read(tmp_path / "cut.jpg", GREY)


def test_a_missing_target_is_named() -> None:
    with pytest.raises(ValueError, match=r"No image at 'nowhere\.png' \(data\.attack\.target\)"):
        PhotoGuardEncoder(target="nowhere.png")
