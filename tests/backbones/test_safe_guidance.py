"""Safe latent diffusion beside its equations written out: python -m pytest tests/backbones"""

import math
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.batch import PromptBatch
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import Sampling
from shortcut_lightning.safe_guidance import SafeGuidance, SafeSteps

PROMPTS = ["a photo of sks dog", "a dog on the beach"]
STRONG = SafeGuidance(warmup=0.3, scale=50.0, threshold=0.05, momentum_scale=0.5, momentum=0.7)
STEPS, GUIDANCE = 7, 15.0  # random weights hear little of a text
FRAGMENTS = sorted((Path(__file__).parents[2] / "configs" / "erasing").glob("sld_*.yaml"))


def published(model: Backbone, safety: SafeGuidance) -> Tensor:
    """The equations one element at a time in plain numbers, within the schedulers of diffusers."""
    flow = model.prediction_type == "flow"
    kind = FlowMatchEulerDiscreteScheduler if flow else DDIMScheduler
    scheduler = kind.from_config(model.scheduler.config)
    scheduler.set_timesteps(STEPS)
    channels, side = model.denoiser.config.in_channels, model.denoiser.config.sample_size
    draws = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    latents = torch.cat([torch.randn(1, channels, side, side, generator=g) for g in draws])
    momentum = [0.0] * latents.numel()
    texts = [model.embed(text) for text in ([""] * 2, PROMPTS, ["beach"] * 2)]
    for step, timestep in enumerate(scheduler.timesteps):
        answers = []
        for text in texts:
            if flow:
                given = (latents, text.hidden, text.pooled, timestep.expand(2))
            else:
                given = (latents, timestep, text.hidden)
            answers.append(model.denoiser(*given, return_dict=False)[0].flatten().tolist())
        output = []
        for place, (without, wanted, unwanted) in enumerate(zip(*answers, strict=True)):
            mu = min(1.0, safety.scale * abs(wanted - unwanted))
            if wanted - unwanted >= safety.threshold:
                mu = 0.0
            gamma = mu * (unwanted - without) + safety.momentum_scale * momentum[place]
            momentum[place] = safety.momentum * momentum[place] + (1 - safety.momentum) * gamma
            away = gamma if step >= round(safety.warmup * STEPS) else 0.0
            output.append(without + GUIDANCE * (wanted - without - away))
        moved = torch.tensor(output).reshape(latents.shape)
        latents = scheduler.step(moved, timestep, latents, return_dict=False)[0]
    return model.decode(latents)


def drawn(model: Backbone, safety: SafeGuidance | None, negative: str = "beach") -> Tensor:
    return model.sample(
        PROMPTS,
        seeds=[3, 4],
        negative_prompts=negative,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        safety=safety,
    )


@pytest.mark.parametrize("kind", ["small_sd", "small_sd_v", "small_sd3"])
@torch.no_grad()
def test_sampling_is_the_paper_s(kind: str, request: pytest.FixtureRequest) -> None:
    model = backbones.load(str(request.getfixturevalue(kind))).eval()
    made = drawn(model, STRONG)
    error = (made - published(model, STRONG)).abs().mean()
    effect = (made - drawn(model, None, "")).abs().mean()
    assert error < 0.01 * effect
    assert effect > 1e-3


@pytest.mark.parametrize("kind", ["small_sd", "small_sdxl", "small_sd3"])
def test_what_takes_nothing_off_changes_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    model = backbones.load(str(request.getfixturevalue(kind))).eval()
    plain = drawn(model, None, "")
    for safety in (SafeGuidance(scale=0.0), SafeGuidance(warmup=1.0, momentum_scale=0.9)):
        torch.testing.assert_close(drawn(model, safety), plain, rtol=1e-4, atol=1e-4)
    assert torch.equal(drawn(model, STRONG, ""), plain)  # nothing is named, nothing is asked
    assert (drawn(model, STRONG) - plain).abs().mean() > 5e-4
    assert torch.equal(drawn(model, None, ""), plain)  # no hook is left


def test_a_step_knows_when_it_begins() -> None:
    steps = SafeSteps(SafeGuidance(warmup=0.14, scale=1e9, threshold=9.0, momentum_scale=0.0), 50)
    without, wanted, unwanted = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    made = [steps(without, wanted, unwanted).item() for _ in range(50)]
    assert made == [1.0] * 7 + [-1.0] * 43


@pytest.mark.parametrize("scheduler", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
def test_the_warm_up_is_of_steps_where_one_asks_twice(
    scheduler: str, small_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbones.load(str(small_sd)).eval()
    changed: list[bool] = []

    class Seen(SafeSteps):
        def __call__(self, without: Tensor, wanted: Tensor, unwanted: Tensor) -> Tensor:
            made = super().__call__(without, wanted, unwanted)
            changed.append(not torch.equal(made, wanted))
            return made

    monkeypatch.setattr("shortcut_lightning.backbones.steering.SafeSteps", Seen)
    safety = SafeGuidance(warmup=0.5, scale=1e9, threshold=9.0)
    model.sample(
        PROMPTS,
        seeds=[3, 4],
        negative_prompts="beach",
        num_inference_steps=4,
        scheduler=scheduler,
        safety=safety,
    )
    assert changed == [False] * 4 + [True] * 3  # the last step asks once


def test_named_settings_are_the_published_ones() -> None:
    """The paper's table; the first number in steps of 50."""
    table = {
        "weak": (15, 200, 0.0, 0.0),
        "medium": (10, 1000, 0.01, 0.3, 0.4),
        "strong": (7, 2000, 0.025, 0.5, 0.7),
        "max": (0, 5000, 1.0, 0.5, 0.7),
    }
    found = {}
    for file in FRAGMENTS:
        setting = SafeGuidance(**yaml.safe_load(file.read_text("utf-8"))["safety"])
        own = (setting.scale, setting.threshold, setting.momentum_scale, setting.momentum)
        found[file.stem.removeprefix("sld_")] = (setting.begins(50), *own)
    assert {name: values[: len(table[name])] for name, values in found.items()} == table
    assert SafeGuidance() == SafeGuidance(**yaml.safe_load(FRAGMENTS[1].read_text())["safety"])


def test_a_module_samples_so_and_refuses_without_guidance(small_sd: Path) -> None:
    module = DreamBooth(
        str(small_sd), sampling=Sampling(num_inference_steps=STEPS, guidance_scale=GUIDANCE)
    )
    seeds = torch.tensor([3, 4])
    ask = PromptBatch(PROMPTS, ["beach"] * 2, seeds, seeds, safety=STRONG)
    assert torch.equal(module.sample(ask), drawn(module.backbone, STRONG))
    module.hparams["guidance_scale"] = 1.0
    with pytest.raises(ValueError, match=r"set model\.sampling\.guidance_scale above 1"):
        module.sample(ask)
    assert math.isfinite(module.sample(ask._replace(safety=None)).sum())
