"""The published baselines: python -m pytest tests/modules/test_concept_unlearning.py"""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from shortcut_lightning import backbones
from shortcut_lightning.batch import PromptBatch, TrainBatch
from shortcut_lightning.modules.esd import ErasedStableDiffusion, towards
from shortcut_lightning.modules.uce import (
    UnifiedConceptEditing,
    edited_projection,
    text_projections,
)


def batch() -> TrainBatch:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    prompts = ["a photo of sks dog"] * 2
    return TrainBatch(images, prompts, torch.zeros(2, dtype=torch.bool), torch.arange(2))


def test_esd_starts_at_its_guidance_and_trains_cross_attention(small_sd: Path) -> None:
    """Before training both models agree, so the loss is (1 + eta)^2 times the concept's effect."""
    module = ErasedStableDiffusion(
        "dog", 2.0, ddim_steps=4, pretrained_model_name_or_path=str(small_sd)
    )
    loss = module(batch())["loss"]
    noisy, timesteps = module.half_denoised(batch())
    with torch.no_grad():
        outputs = [
            module.backbone.predict(noisy, timesteps, module.backbone.embed([text] * 2))
            for text in ("dog", "")
        ]
    effect = (outputs[0] - outputs[1]).square().mean()
    torch.testing.assert_close(loss, 9 * effect, rtol=1e-4, atol=1e-9)
    loss.backward()
    moved = {n for n, p in module.backbone.named_parameters() if p.grad is not None}
    assert moved
    assert all(".attn2." in name for name in moved)
    others = ErasedStableDiffusion(
        "dog", parts="others", pretrained_model_name_or_path=str(small_sd)
    )
    free = [n for n, p in others.backbone.named_parameters() if p.requires_grad]
    assert free
    assert not any(".attn2." in name for name in free)


def test_esd_s_teacher_has_the_lora_that_the_edited_model_has(
    small_sd: Path, tmp_path: Path
) -> None:
    """Else the loss before training would hold what the LoRA does as well."""
    backbone = backbones.load(str(small_sd)).requires_grad_(False)
    backbone.add_lora(unet=True, text_encoder=False, rank=2, alpha=2, dropout=0.0, dora=False)
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data += 0.5 * torch.randn_like(parameter)
    backbone.save_lora(tmp_path)
    module = ErasedStableDiffusion(
        "dog",
        negative_guidance=-1.0,  # the target is the frozen model's prediction for the concept
        ddim_steps=4,
        pretrained_model_name_or_path=str(small_sd),
        lora=str(tmp_path / "pytorch_lora_weights.safetensors"),
    )
    assert module(batch())["loss"] < 1e-10
    assert not any("teacher" in name for name in module.state_dict())
    teacher = module.teacher()
    module.on_fit_end()
    assert module.teacher() is not teacher


@pytest.mark.parametrize("kind", ["small_sd", "small_sd_v"])
def test_sampling_on_the_way_is_ddim(kind: str, request: pytest.FixtureRequest) -> None:
    """Against diffusers' own scheduler, with the same spacing of timesteps."""
    folder = request.getfixturevalue(kind)
    module = ErasedStableDiffusion("dog", pretrained_model_name_or_path=str(folder))
    backbone = module.backbone
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents, timesteps = towards(backbone, "dog", start, steps=10, stop=6, guidance=3.0)
    scheduler = DDIMScheduler.from_pretrained(
        folder, subfolder="scheduler", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    expected = start
    with torch.no_grad():
        texts = backbone.embed(["", "dog"])
        for step in scheduler.timesteps[:6]:
            without, wanted = backbone.predict(
                expected.repeat(2, 1, 1, 1), step.repeat(2), texts
            ).chunk(2)
            output = without + 3.0 * (wanted - without)
            expected = scheduler.step(output, step, expected).prev_sample
    assert timesteps.tolist() == [int(scheduler.timesteps[6])]
    torch.testing.assert_close(latents, expected, rtol=1e-3, atol=1e-4)


def test_uce_minimises_its_sum() -> None:
    """The gradient of the published objective vanishes at the edit."""
    chance = torch.Generator().manual_seed(0)
    weight, old, new, kept = (
        torch.randn(shape, generator=chance, dtype=torch.float64)
        for shape in ((5, 7), (3, 7), (3, 7), (4, 7))
    )
    edited = edited_projection(weight, old, new, kept, 1.5, 0.5, 0.1).requires_grad_()
    loss = (
        1.5 * (old @ edited.T - new @ weight.T).square().sum()
        + 0.5 * (kept @ edited.T - kept @ weight.T).square().sum()
        + 0.1 * (edited - weight).square().sum()
    )
    loss.backward()
    assert edited.grad is not None
    assert edited.grad.abs().max() < 1e-10
    same = edited_projection(weight, old, old, kept, 1.0, 1.0, 0.1)
    torch.testing.assert_close(same, weight)


def test_uce_makes_one_word_mean_another(small_sd: Path) -> None:
    options = {"pretrained_model_name_or_path": str(small_sd), "num_inference_steps": 2}
    module = UnifiedConceptEditing(["dog"], "person", damping=1e-4, **options)
    projection = text_projections(module.backbone)[0]
    base = text_projections(module.base())[0]
    with torch.no_grad():
        dog = module.backbone.embed(["dog"]).hidden[0, 1]
        person = module.backbone.embed(["person"]).hidden[0, 1]
        before = (base(dog) - base(person)).norm()
        after = (projection(dog) - base(person)).norm()
    assert after < 0.2 * before
    seed, one = torch.tensor([0]), torch.tensor([0])
    tuned = module.sample(PromptBatch(["a dog"], [""], seed, one))
    plain = module.sample(PromptBatch(["a dog"], [""], seed, one, "base"))
    assert not torch.equal(tuned, plain)
    with pytest.raises(ValueError, match="use `test` or `predict`"):
        module.configure_optimizers()


def test_missing_words_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"model\.concept is empty"):
        ErasedStableDiffusion()
    with pytest.raises(ValueError, match=r"model\.concepts is empty"):
        UnifiedConceptEditing()
    with pytest.raises(ValueError, match=r"\.damping is 0; it must be above 0"):
        UnifiedConceptEditing(["dog"], damping=0)
    with pytest.raises(ValueError, match=r"model\.method"):
        ErasedStableDiffusion("dog", method="lora")
