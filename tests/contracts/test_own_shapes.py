"""Every attack and purifier on pictures that are no squares, on both built-in families.

python -m pytest tests/contracts/test_own_shapes.py [-m slow]
"""

import pytest
import torch
from test_stage_contracts import ATTACKS, PURIFIERS, build, on_the_grid

from shortcut_lightning import attacks, backbones
from shortcut_lightning.attacks import SurrogateTraining
from shortcut_lightning.backbones import Backbone

HEIGHT, WIDTH = 32, 48


FLOW = pytest.param("pocket-flow", marks=pytest.mark.slow)


@pytest.fixture(params=["pocket", FLOW], scope="module")
def model(request: pytest.FixtureRequest) -> Backbone:
    return backbones.load(request.param).eval().requires_grad_(False)


@pytest.mark.parametrize("kind", [k for k in ATTACKS + PURIFIERS if k is not attacks.NoAttack])
def test_stages_take_a_picture_in_its_own_shape(kind: type, model: Backbone) -> None:
    stage = build(kind)
    if hasattr(stage, "training"):
        stage.training = SurrogateTraining(num_class_images=0)
    if kind is attacks.SimAC:
        stage.feature_weight = 0.0  # a flow has no decoder whose features it could take
    for name, most in {
        "steps": 2,
        "surrogate_steps": 1,
        "strength": 0.003,
        "iterations": 1,
    }.items():
        if hasattr(stage, name):
            setattr(stage, name, min(getattr(stage, name), most))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1, 3, HEIGHT, WIDTH), generator=generator) / 255
    out = stage(images, model, ["a photo of sks person"], generator=generator)
    assert out.shape == images.shape
    assert on_the_grid(out)
    if kind in ATTACKS:
        assert 0 < (out - images).abs().max() * 255 <= stage.epsilon + 0.01


def test_pictures_are_sampled_in_the_shape_that_is_asked_for(model: Backbone) -> None:
    def sampled(size: tuple[int, int] | None) -> torch.Tensor:
        return model.sample(["a photo of a person"], seeds=[3], num_inference_steps=2, size=size)

    assert sampled((HEIGHT, WIDTH)).shape == (1, 3, HEIGHT, WIDTH)
    assert torch.equal(sampled((model.resolution, model.resolution)), sampled(None))
