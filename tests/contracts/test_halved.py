"""Weights halved once give the bits of autocast, which halves them at every use.

python -m pytest tests/contracts/test_halved.py
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from flow_models import write_small_flux, write_small_klein, write_small_z_image
from test_stage_contracts import ATTACKS, PROMPTS, build
from torch import Tensor, nn

from shortcut_lightning import backbones, membership
from shortcut_lightning.attacks import gradient
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.freezing import halved
from shortcut_lightning.membership import engine
from shortcut_lightning.membership.model import Model

FLOWS = {"flux": write_small_flux, "klein": write_small_klein, "z-image": write_small_z_image}
FAMILIES = ["sd", "sdxl", "sd3", *FLOWS]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    kind = request.param
    flow = FLOWS.get(kind)
    folder = flow(tmp_path / kind) if flow else request.getfixturevalue(f"small_{kind}")
    return backbones.load(str(folder)).requires_grad_(False).eval()


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 32, 32), generator=generator) / 255


@contextmanager
def nothing(network: nn.Module, enabled: bool) -> Iterator[None]:
    yield


def test_predictions_have_the_bits_of_autocast(model: Backbone, images: Tensor) -> None:
    asked, steps = Model(model, bf16=True), torch.tensor([10, 400])
    with torch.no_grad():
        latents, text = model.encode(images).mean, model.embed(PROMPTS)
        usual = asked.epsilon(latents, steps, text)
        with halved(model.denoiser, True):
            kinds = {weight.dtype for weight in model.denoiser.parameters()}
            once = asked.epsilon(latents, steps, text)
    assert torch.bfloat16 in kinds
    assert torch.equal(once, usual)
    assert {weight.dtype for weight in model.denoiser.parameters()} == {torch.float32}


STILL = [each for each in ATTACKS if issubclass(each, GradientAttack) and not each.learns]


@pytest.mark.parametrize("kind", STILL, ids=lambda kind: kind.__name__)
def test_attacks_have_the_bits_of_autocast(
    kind: type[GradientAttack], images: Tensor, small_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbones.load(str(small_sd)).requires_grad_(False).eval()
    attack = build(kind)
    attack.bf16, attack.steps = True, 2
    found = []
    for form in (halved, nothing):
        monkeypatch.setattr(gradient, "halved", form)
        random = torch.Generator().manual_seed(0)
        found.append(attack(images, model, PROMPTS, generator=random))
    assert torch.equal(*found)


def test_scores_have_the_bits_of_autocast(
    images: Tensor, small_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that differentiate by the weights are asked with the weights as they are."""
    model = backbones.load(str(small_sd)).requires_grad_(False).eval()
    scores = {"CLiD": membership.CLiD(), "GSA": membership.GSA(), "SecMI": membership.SecMI()}
    pictures = [
        membership.picture(str(number), PROMPTS[number], each, 32)
        for number, each in enumerate(images)
    ]
    found = []
    for form in (halved, nothing):
        monkeypatch.setattr(engine, "halved", form)
        asked = membership.Engine({"m": model}, bf16=True, progress=False)
        rows = asked.measure(pictures, scores, ["m"])
        found.append([rows[name]["m"][p.row].tolist() for name in scores for p in pictures])
    assert found[0] == found[1]
