"""Attacks on rectified flows whose text is a T5's or a language model's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from flow_models import (
    write_small_flux,
    write_small_klein,
    write_small_qwen_image,
    write_small_sd3_with_t5,
    write_small_z_image,
)
from models import write_small_sd3
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.attacks import CAAT, EASPL, AdvDM, AntiDiffusion
from shortcut_lightning.attacks.anti_diffusion import parts, shared
from shortcut_lightning.attacks.base import SoundnessWarning
from shortcut_lightning.attacks.surrogate import Surrogate, SurrogateTraining
from shortcut_lightning.backbones.text_attention import text_attention
from shortcut_lightning.freezing import copy_sharing

WRITERS: dict[str, Callable[[Path], Path]] = {
    "sd3": write_small_sd3_with_t5,
    "flux": write_small_flux,
    "klein": write_small_klein,
    "z-image": write_small_z_image,
    "qwen-image": write_small_qwen_image,
}


@pytest.fixture(params=list(WRITERS), scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = WRITERS[request.param](tmp_path_factory.mktemp("flow") / request.param)
    return backbones.load(str(folder)).requires_grad_(False).eval()


def photos() -> Tensor:
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return (pictures * 255).round() / 255


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_surrogate_teaches_no_language_model(method: Any, model: Any) -> None:
    training = SurrogateTraining(method, num_class_images=0, learning_rate=1e-3)
    surrogate = Surrogate(model, training, ["a dog"] * 2, photos(), chance())
    before = [each.clone() for each in surrogate.learners]
    surrogate.train(surrogate.encode(photos()), 1)
    assert any(not torch.equal(a, b) for a, b in zip(before, surrogate.learners, strict=True))
    learners = {id(each) for each in surrogate.learners}
    learn = {
        name.split(".")[0]
        for name, each in surrogate.model.named_parameters()
        if id(each) in learners
    }
    assert learn == {"transformer", *model.learning_encoders}


def test_a_learnt_prompt_is_as_long_as_the_prompt_it_began_with(model: Any) -> None:
    empty = model.embed([""])
    text = torch.nn.ParameterList(parts(empty))
    noisy, steps = torch.randn(2, 8, 8, 8, generator=chance()), torch.tensor([300, 700])
    expected = model.predict(noisy, steps, empty.rows(torch.tensor([0, 0])))
    found = model.predict(noisy, steps, shared(text, empty.mask, 2))
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore::shortcut_lightning.attacks.base.SoundnessWarning")
def test_anti_diffusion_runs(model: Any) -> None:
    attack = AntiDiffusion(5, 2, 1, 1, prompt_steps=1, surrogate_steps=1)
    moved = attack(photos(), model, ["a dog"] * 2, generator=chance()) - photos()
    assert 0 < (moved.abs().max() * 255).item() <= 5.01


def test_attention_that_is_turned_by_places_is_not_read_as_if_it_were_not(model: Any) -> None:
    attack = AntiDiffusion(5, 2, 0, 1, prompt_steps=0)
    with text_attention(model.denoiser) as maps:
        model.predict(torch.zeros(1, 8, 8, 8), torch.tensor([500]), model.embed(["a dog"]))
    assert bool(maps) == isinstance(model.denoiser, SD3Transformer2DModel)
    if not maps:
        with pytest.warns(SoundnessWarning, match="no attention to text can be read"):
            attack(photos(), model, ["a dog"] * 2, generator=chance())


def test_caat_leaves_attention_within_the_picture_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stable Diffusion 3.5 medium has layers `attn2` that see no text."""
    model: Any = backbones.load(str(write_small_sd3(tmp_path / "sd35"))).requires_grad_(False)
    settings = dict(model.denoiser.config) | {"dual_attention_layers": [0]}
    model.transformer = SD3Transformer2DModel.from_config(settings).requires_grad_(False).eval()
    hooked: list[int] = []
    monkeypatch.setattr(
        "shortcut_lightning.attacks.caat.first_token_given",
        lambda module, inputs, output: hooked.append(output.shape[1]),
    )
    CAAT(steps=1)(photos(), model, ["a dog"] * 2, generator=chance())
    assert set(hooked) == {model.embed(["a dog"]).hidden.shape[1]}


@pytest.mark.parametrize(
    "attack",
    [
        AdvDM(steps=1, surrogate="pocket-flow"),
        EASPL(
            rounds=1,
            surrogates=["", "pocket-flow"],
            training=SurrogateTraining(num_class_images=0),
        ),
    ],
)
def test_a_surrogate_of_another_family_says_which_shapes_it_takes(attack: Any) -> None:
    model = backbones.load("pocket")
    picture = torch.zeros(1, 3, 60, 68)  # whole latents of the pocket, and half ones of tokens
    with pytest.raises(ValueError, match=r"surrogate: 'pocket-flow' .* multiple of 8 .* 68 x 60"):
        attack(picture, model, ["a photo"], generator=chance())


def test_what_is_stored_in_4_bits_does_not_learn() -> None:
    packed = torch.nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
    model = torch.nn.ParameterList([packed])
    assert copy_sharing(model, [])[0] is packed
    with pytest.raises(ValueError, match="frozen_dtype nf4"):
        copy_sharing(model, [packed])
