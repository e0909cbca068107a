"""Weights halved once give the bits of autocast, which halves them at every use.

python -m pytest tests/contracts/test_halved.py
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from flow_models import (
    write_small_flux,
    write_small_klein,
    write_small_qwen_image,
    write_small_z_image,
)
from test_stage_contracts import ATTACKS, PROMPTS, build
from torch import Tensor, nn

from shortcut_lightning import backbones, membership
from shortcut_lightning.attacks import gradient
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.freezing import halved
from shortcut_lightning.membership import engine
from shortcut_lightning.membership.model import Model
from shortcut_lightning.membership.reducers import ImportantWords

FLOWS = {
    "flux": write_small_flux,
    "klein": write_small_klein,
    "qwen-image": write_small_qwen_image,
    "z-image": write_small_z_image,
}
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


class Watched:
    """`halved`, or nothing in its place, and whether it was wanted."""

    def __init__(self, real: bool) -> None:
        self.real, self.wanted = real, set[bool]()

    @contextmanager
    def __call__(self, network: nn.Module, enabled: bool) -> Iterator[None]:
        self.wanted.add(enabled)
        with halved(network, enabled and self.real):
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
    for real in (True, False):
        watched = Watched(real)
        monkeypatch.setattr(gradient, "halved", watched)
        random = torch.Generator().manual_seed(0)
        found.append(attack(images, model, PROMPTS, generator=random))
        assert watched.wanted == {True}
    assert torch.equal(*found)


def test_dora_takes_the_norm_of_whole_weights(small_sd: Path, images: Tensor) -> None:
    model = backbones.load(str(small_sd)).requires_grad_(False).eval()
    model.add_lora(unet=True, text_encoder=False, rank=4, alpha=4, dropout=0.0, dora=True)
    for name, weight in model.denoiser.named_parameters():
        weight.requires_grad_(False)
        if "lora_B" in name:
            weight.data.normal_(generator=torch.Generator().manual_seed(0))
    asked, steps = Model(model, bf16=True), torch.tensor([10, 400])
    with torch.no_grad():
        latents, text = model.encode(images).mean, model.embed(PROMPTS)
        usual = asked.epsilon(latents, steps, text)
        with halved(model.denoiser, True):
            assert torch.equal(asked.epsilon(latents, steps, text), usual)


def by_words() -> membership.Score:
    return membership.CLiD(reducer=ImportantWords(num_inference_steps=1))


# Score -> whether it is asked with halved weights.
SCORED: dict[Callable[[], membership.Score], bool] = {
    membership.CLiD: True,
    by_words: False,  # words are weighed by sampling, in float32
    membership.GSA: False,  # differentiates by the weights
    membership.SecMI: False,  # wants float32
}


@pytest.mark.parametrize("kind", SCORED, ids=lambda kind: kind.__name__)
def test_scores_have_the_bits_of_autocast(
    kind: Callable[[], membership.Score],
    images: Tensor,
    small_sd: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = backbones.load(str(small_sd)).requires_grad_(False).eval()
    pictures = [
        membership.picture(str(number), PROMPTS[number], each, 32)
        for number, each in enumerate(images)
    ]
    found = []
    for real in (True, False):
        watched = Watched(real)
        monkeypatch.setattr(engine, "halved", watched)
        asked = membership.Engine({"m": model}, bf16=True, progress=False)
        rows = asked.measure(pictures, {"it": kind()}, ["m"])["it"]["m"]
        found.append([rows[each.row].tolist() for each in pictures])
        assert watched.wanted == {SCORED[kind]}
    assert found[0] == found[1]
