"""Weights that do not learn, kept in halves: python -m pytest tests/modules/test_frozen_dtype.py"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from diffusers import StableDiffusionPipeline
from test_dreambooth import batch, fit
from torch import Tensor, nn

from shortcut_lightning import attacks, backbones, purifiers
from shortcut_lightning.attacks.surrogate import Surrogate, SurrogateTraining
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership import CLiD
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import AdapterShape, Compute
from shortcut_lightning.modules.trainable import shrink_frozen


@pytest.fixture(params=["small_sd", "small_sdxl"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def lora(folder: str, dtype: str, **options: Any) -> DreamBooth:
    pl.seed_everything(0)
    return DreamBooth(
        folder, method="lora", learning_rate=1e-2, compute=Compute(frozen_dtype=dtype), **options
    )


def size(network: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in network.parameters())


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("dora", [False, True])
def test_the_same_step_in_half_the_memory(folder: str, dtype: str, dora: bool) -> None:
    whole = lora(folder, "fp32", train_text_encoder=True, adapter=AdapterShape(dora=dora))
    halves = lora(folder, dtype, train_text_encoder=True, adapter=AdapterShape(dora=dora))
    learned = sum(p.numel() for p in halves.parameters() if p.requires_grad)
    assert all(p.dtype == torch.float32 for p in halves.parameters() if p.requires_grad)
    for part in ("denoiser", "text_encoders"):
        before, after = (size(getattr(each.backbone, part)) for each in (whole, halves))
        assert after < 0.5 * before + 4 * learned
    assert size(halves.backbone.vae) == size(whole.backbone.vae)  # type: ignore[arg-type]
    losses = []
    for module in (whole, halves):
        loss = module(batch())["loss"]
        loss.backward()
        losses.append(loss.item())
        for name, parameter in module.named_parameters():
            assert (parameter.grad is not None) <= parameter.requires_grad, name
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


def drawn(backbone: Backbone) -> Tensor:
    return backbone.sample(["a photo of sks dog"], seeds=[3], num_inference_steps=4)


def test_it_learns_samples_and_exports(folder: str, tmp_path: Path) -> None:
    images = {}
    for dtype in ("fp32", "bf16"):
        module = lora(folder, dtype)
        fit(module, tmp_path, steps=3)
        images[dtype] = drawn(module.backbone)
        assert drawn(module.base()).isfinite().all()
        module.backbone.save(tmp_path / dtype)
    assert (images["bf16"] - images["fp32"]).abs().mean() < 0.02
    again = drawn(DreamBooth(str(tmp_path / "bf16")).backbone)
    assert (again - images["bf16"]).abs().mean() < 0.02


def test_halves_never_need_the_memory_of_whole_weights(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, load = [], backbones.load

    def noting(*arguments: Any, **more: Any) -> Backbone:
        asked.append(arguments[-1])
        return load(*arguments, **more)

    monkeypatch.setattr(backbones, "load", noting)
    halves = lora(folder, "bf16", train_text_encoder=True)
    halves.base()
    lora(folder, "bf16", new_tokens=["<s>"])
    assert asked == [torch.bfloat16, torch.bfloat16, torch.float32]
    # and they are what rounding after loading makes of them
    whole = load(folder).requires_grad_(False)
    shrink_frozen(whole, "bf16")
    expected = whole.state_dict()
    for name, tensor in halves.base().state_dict().items():
        assert torch.equal(tensor, expected[name]), name
        assert tensor.dtype == expected[name].dtype, name


def test_what_learns_as_a_whole_stays_whole(small_sd: Path, tmp_path: Path) -> None:
    full = DreamBooth(str(small_sd), compute=Compute(frozen_dtype="bf16")).backbone
    assert {p.dtype for p in full.denoiser.parameters()} == {torch.float32}
    assert {p.dtype for p in full.text_encoders.parameters()} == {torch.bfloat16}
    full.save(tmp_path)  # stock readers do not mix dtypes
    stock = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert {p.dtype for p in stock.text_encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in full.text_encoders.parameters()} == {torch.bfloat16}
    words = lora(str(small_sd), "bf16", new_tokens=["<s>"]).backbone
    assert {p.dtype for p in words.text_encoders.parameters()} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in words.denoiser.parameters()}


def test_stages_and_scores_take_it(small_sd: Path) -> None:
    backbone = lora(str(small_sd), "bf16").backbone
    images = (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255).round()
    images, prompts = images / 255, ["a photo of sks dog"] * 2
    recipe = SurrogateTraining(num_class_images=1)
    for attack in (
        attacks.AdvDM(steps=2),
        attacks.CAAT(steps=2),
        attacks.ASPL(rounds=1, surrogate_steps=1, steps=1, training=recipe),
        attacks.SDS(steps=2),
    ):
        changed = attack(images, backbone, prompts, generator=torch.Generator().manual_seed(0))
        assert 1 <= (changed - images).abs().max() * 255 <= attack.epsilon + 1e-3
    cleaned = purifiers.SDEdit(steps=2)(images, backbone, prompts, generator=torch.Generator())
    assert cleaned.isfinite().all()
    assert CLiD(n_t=1)(images, prompts, backbone).isfinite().all()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_surrogate_of_halves_learns_in_whole(small_sd: Path, method: str) -> None:
    backbone = lora(str(small_sd), "bf16").backbone
    recipe = SurrogateTraining(method=method, num_class_images=0)  # type: ignore[arg-type]
    images = torch.rand(1, 3, 32, 32)
    surrogate = Surrogate(backbone, recipe, ["a dog"], images, torch.Generator())
    assert {p.dtype for p in surrogate.learners} == {torch.float32}
    before = surrogate.weights()
    surrogate.train(surrogate.encode(images), steps=2)
    moved = [not torch.equal(a, b) for a, b in zip(before, surrogate.weights(), strict=True)]
    assert sum(moved) > 0.4 * len(moved)  # half of an adapter has no gradient at first
