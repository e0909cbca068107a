"""What every attack, purifier and detector of the package promises, found by walking it.

python -m pytest tests/contracts
"""

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fake_model import FakeBackbone
from PIL import Image
from torch import Tensor

from shortcut_lightning import attacks, concepts, purifiers
from shortcut_lightning.attacks import Attack
from shortcut_lightning.attacks.progress import Progress, Stateful
from shortcut_lightning.concepts import Detector
from shortcut_lightning.files.cache import key_of
from shortcut_lightning.files.images import save_image
from shortcut_lightning.purifiers import Purifier

# Arguments of detectors that cannot do without. Those that need another's model or code and are
# not named here are skipped, and tested with a stand-in where they live; so are purifiers with the
# weights of another's model. Attacks must be constructible without arguments.
NEEDED: dict[str, dict[str, Any]] = {"PrecomputedBoxes": {"path": "boxes.jsonl"}}
# The promises hold at any length of an attack, so these are cut short.
SHORT = {
    "steps": 5,
    "rounds": 1,
    "surrogate_steps": 2,
    "trials": 1,
    "interval": 2,
    "repeats": 2,
    "iterations": 2,
    "search_steps": 2,
    "sigma_steps": 2,
    "prompt_steps": 2,
    "num_inference_steps": 2,
}
PROMPTS = ["a photo of sks dog", "a photo of sks dog on a beach"]


def concrete(package: ModuleType, base: type) -> list[type]:
    """Every class below `base` in the package that can be made."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    found, waiting = [], [base]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not inspect.isabstract(kind) and kind.__module__.startswith("shortcut_lightning."):
            found.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


ATTACKS = concrete(attacks, Attack)
# The oracle works only inside a run, which knows the clean images: tests/purifiers/test_oracle.py.
PURIFIERS = [kind for kind in concrete(purifiers, Purifier) if kind is not purifiers.Oracle]
DETECTORS = concrete(concepts, Detector)


@pytest.fixture
def images() -> Tensor:
    """8-bit images with black and white in them, where a careless budget leaves [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (2, 3, 16, 24), generator=generator)
    levels[:, :, :4], levels[:, :, 4:8] = 0, 255
    return levels / 255


def build(kind: type, folder: Path = Path()) -> Any:
    given = dict(NEEDED.get(kind.__name__, {}))
    required = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in given
    ]
    if required and not issubclass(kind, Attack):
        pytest.skip(f"{kind.__name__} needs {', '.join(required)}")
    if "path" in given:
        given["path"] = str(folder / given["path"])
        Path(given["path"]).write_text('{"file_name": "a.png", "boxes": []}\n')
    made = shortened(kind(**given))
    for name, value in list(vars(made).items()):
        if isinstance(value, Attack):  # of an attack around another
            setattr(made, name, shortened(copy.copy(value)))
    return made


def shortened(stage: Any) -> Any:
    for name, most in SHORT.items():
        if hasattr(stage, name):
            setattr(stage, name, min(getattr(stage, name), most))
    return stage


def call(stage: Any, images: Tensor, backbone: FakeBackbone, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return stage(images, backbone, PROMPTS[: len(images)], generator=generator)


def on_the_grid(images: Tensor) -> bool:
    return torch.equal(images, (images * 255).round() / 255)


def test_the_walk_finds_the_stages() -> None:
    assert {"NoAttack", "AdvDM", "ASPL", "MetaCloak", "Adaptive"} <= {a.__name__ for a in ATTACKS}
    assert {"Gaussian", "Jpeg", "Resize"} <= {p.__name__ for p in PURIFIERS}
    assert {"NoDetector", "PrecomputedBoxes"} <= {d.__name__ for d in DETECTORS}


@pytest.mark.parametrize("kind", ATTACKS + PURIFIERS + DETECTORS)
def test_arguments_are_typed_documented_and_key_the_cache(kind: type, tmp_path: Path) -> None:
    assert kind.__doc__
    for name, parameter in inspect.signature(kind).parameters.items():
        assert parameter.annotation is not inspect.Parameter.empty, name
    made = build(kind, tmp_path)
    for name, parameter in inspect.signature(kind).parameters.items():
        if isinstance(parameter.default, float):
            other = copy.copy(made)
            setattr(other, name, getattr(made, name) + 1)
            assert key_of(stage=made) != key_of(stage=other), name
    assert key_of(stage=made) == key_of(stage=build(kind, tmp_path))


@pytest.mark.parametrize("kind", ATTACKS + PURIFIERS)
def test_output_is_8_bit_images_of_the_same_shape(kind: type, images: Tensor) -> None:
    for given in (images, images[:1]):
        out = call(build(kind), given, FakeBackbone())
        assert out.shape == given.shape
        assert out.dtype == torch.float32
        assert not out.requires_grad
        assert out.min() >= 0
        assert out.max() <= 1
        assert on_the_grid(out)


@pytest.mark.parametrize("epsilon", [0, 1, 4, 7.65, 11, 255])
@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if kind is not attacks.NoAttack])
def test_budget_holds_after_rounding(kind: type, images: Tensor, epsilon: float) -> None:
    attack = build(kind)
    attack.epsilon = epsilon
    out = call(attack, images, FakeBackbone())
    distance = (out * 255 - images * 255).abs().max().item()
    assert distance <= epsilon + 1e-3
    if epsilon >= 1:
        assert distance >= 1  # an attack that does nothing is none


@pytest.mark.parametrize("kind", ATTACKS)
def test_budget_holds_in_the_written_file(kind: type, images: Tensor, tmp_path: Path) -> None:
    out = call(build(kind), images, FakeBackbone())
    for number, (made, clean) in enumerate(zip(out, images, strict=True)):
        save_image(made, tmp_path / f"{number}.png")
        with Image.open(tmp_path / f"{number}.png") as opened:
            levels = torch.from_numpy(np.array(opened)).permute(2, 0, 1).int()
        assert (levels - (clean * 255).round().int()).abs().max() <= 11


@pytest.mark.parametrize("kind", ATTACKS + PURIFIERS)
def test_same_generator_same_output(kind: type, images: Tensor) -> None:
    stage, backbone = build(kind), FakeBackbone()
    state = torch.get_rng_state()
    first = call(stage, images, backbone)
    assert torch.equal(state, torch.get_rng_state()), "draws from torch's global state"
    torch.rand(7)
    assert torch.equal(first, call(stage, images, backbone))


@pytest.mark.parametrize("kind", ATTACKS + PURIFIERS)
def test_works_where_the_model_is(kind: type, images: Tensor, gpu: torch.device) -> None:
    """On a device of its own, and to the same pixels; a real one rounds some the other way."""
    there = call(build(kind), images.to(gpu), FakeBackbone().to(gpu))
    assert there.device == gpu
    here = call(build(kind), images, FakeBackbone())
    if gpu.type == "cuda":
        assert ((there.cpu() - here).abs() < 0.5 / 255).float().mean() > 0.98
    else:
        assert torch.equal(there.cpu(), here)


class PowerCut(Progress):
    """Writes after each step, counts them, and fails in the middle of one."""

    def __init__(self, folder: Path, at: int = -1) -> None:
        super().__init__(folder, seconds=0)
        self.at = at
        self.steps = 0

    def loop(self, total: int, generator: torch.Generator, *states: Stateful) -> Iterator[int]:
        for step in super().loop(total, generator, *states):
            self.steps += 1
            yield step
            self._due = 0.0
            if self.steps == self.at:
                raise KeyboardInterrupt


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("kind", ATTACKS)
def test_an_interrupted_attack_goes_on_to_the_same_pixels(
    kind: type, share: float, images: Tensor, tmp_path: Path
) -> None:
    def attack(progress: Progress) -> Tensor:
        chance = torch.Generator().manual_seed(0)
        return build(kind)(images, FakeBackbone(), PROMPTS, generator=chance, progress=progress)

    whole = PowerCut(tmp_path / "whole")
    expected = attack(whole)
    if whole.steps < 2:
        assert kind.__name__ in ("NoAttack", "RandomNoise")  # over in an instant
        return
    broken = PowerCut(tmp_path / "broken", at=max(2, round(share * whole.steps)))
    with pytest.raises(KeyboardInterrupt):
        attack(broken)
    rest = PowerCut(tmp_path / "broken")
    assert torch.equal(attack(rest), expected)
    assert rest.steps == whole.steps - broken.steps + 1  # the step that was cut is made again


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ATTACKS + PURIFIERS)
def test_model_and_images_are_as_they_were(kind: type, images: Tensor, training: bool) -> None:
    backbone = FakeBackbone().train(training)
    backbone.mix.requires_grad_(False)
    backbone.scale.grad = torch.ones(1)
    weights, given = copy.deepcopy(backbone.state_dict()), images.clone()
    call(build(kind), images, backbone)
    assert backbone.training is training
    assert backbone.dropout.training is training
    assert not backbone.mix.requires_grad
    assert backbone.scale.requires_grad
    assert torch.equal(backbone.scale.grad, torch.ones(1))
    assert backbone.mix.grad is None
    assert torch.equal(images, given)
    for name, weight in backbone.state_dict().items():
        assert torch.equal(weight, weights[name])
        assert weight.dtype == weights[name].dtype
        assert weight.device == weights[name].device


@pytest.mark.parametrize("kind", ATTACKS + PURIFIERS)
def test_works_where_gradients_are_off(kind: type, images: Tensor) -> None:
    backbone = FakeBackbone()
    usual = call(build(kind), images, backbone)
    with torch.no_grad():
        assert torch.equal(call(build(kind), images, backbone), usual)
    with torch.inference_mode():
        assert torch.equal(call(build(kind), images * 1, backbone), usual)


@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors_answer_for_each_image(kind: type, images: Tensor, tmp_path: Path) -> None:
    boxes = build(kind, tmp_path).detect(images, ["a.png", "b.png"])
    assert len(boxes) == len(images)
    for box in (box for found in boxes for box in found):
        assert box.label
        assert 0 <= box.score <= 1
        if box.xyxy is not None:
            x0, y0, x1, y1 = box.xyxy
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1


@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors_look_where_the_images_are(
    kind: type, images: Tensor, gpu: torch.device, tmp_path: Path
) -> None:
    detector, names = build(kind, tmp_path), ["a.png", "b.png"]
    assert detector.detect(images.to(gpu), names) == detector.detect(images, names)


class Wild(Attack):
    """Ignores every rule."""

    def run(self, images: Tensor, backbone: Any, prompts: Any, generator: Any) -> Tensor:
        backbone.train()
        backbone.requires_grad_(True)
        backbone.encode(images).mean.sum().backward()
        images += 3
        return images.double().detach().requires_grad_()


class Broken(Attack):
    """Diverges."""

    def run(self, images: Tensor, backbone: Any, prompts: Any, generator: Any) -> Tensor:
        return images * float("nan")


def test_the_base_class_holds_a_wild_attack_to_the_rules(images: Tensor) -> None:
    backbone = FakeBackbone().eval().requires_grad_(False)
    given = images.clone()
    out = call(Wild(epsilon=4), images, backbone)
    assert torch.equal(images, given)
    assert out.dtype == torch.float32
    assert on_the_grid(out)
    assert torch.equal((out * 255).round(), (images * 255 + 4).round().clamp(max=255))
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_a_diverged_attack_is_named_and_the_model_comes_back(images: Tensor) -> None:
    backbone = FakeBackbone().train()
    with pytest.raises(ValueError, match="Broken made NaN"):
        call(Broken(), images, backbone)
    assert backbone.training


def test_an_impossible_budget_is_refused() -> None:
    with pytest.raises(ValueError, match=r"epsilon is 300; it must be from 1 to 255 \(in /255"):
        attacks.RandomNoise(epsilon=300)
