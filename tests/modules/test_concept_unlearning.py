"""The published baselines: python -m pytest tests/modules/test_concept_unlearning.py"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor
from flow_models import write_small_z_image
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from shortcut_lightning import backbones
from shortcut_lightning.backbones.text_attention import probabilities, text_layers
from shortcut_lightning.batch import PromptBatch, TrainBatch
from shortcut_lightning.modules.esd import ErasedStableDiffusion, towards
from shortcut_lightning.modules.forget_me_not import ForgetMeNot
from shortcut_lightning.modules.settings import Compute, Sampling
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
    options = {
        "pretrained_model_name_or_path": str(small_sd),
        "sampling": Sampling(num_inference_steps=2),
    }
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


def test_what_is_not_trained_is_not_asked_for() -> None:
    with pytest.raises(ValueError, match=r"model\.method"):
        ErasedStableDiffusion("dog", method="lora")
    for kind in (ErasedStableDiffusion, ForgetMeNot):
        with pytest.raises(ValueError, match=r"set .*model\.train_unet to true"):
            kind("dog", train_unet=False, new_tokens=["xyz"])
    with pytest.raises(
        ValueError, match=r"rewrites the model's own weights.*model\.method to 'full'"
    ):
        UnifiedConceptEditing(["dog"], method="lora")


def test_esd_x_says_where_there_is_no_attention_to_text_alone(tmp_path: Path) -> None:
    """Z-Image has one stream of picture and text."""
    folder = str(write_small_z_image(tmp_path))
    with pytest.raises(ValueError, match=r"has none of its own: set model\.parts to 'others'\.$"):
        ErasedStableDiffusion("dog", pretrained_model_name_or_path=folder)
    others = ErasedStableDiffusion("dog", parts="others", pretrained_model_name_or_path=folder)
    assert all(p.requires_grad for p in others.backbone.denoiser.parameters())


class Looked(AttnProcessor):
    """The published form: diffusers' plain attention, which keeps its probabilities."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        self.seen = seen

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any, **_: Any) -> Any:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        share = attn.get_attention_scores(query, key)
        self.seen.append(share)
        return attn.to_out[0](attn.batch_to_head_dim(share @ value))


def test_uce_takes_words_of_one_row(small_sd: Path) -> None:
    for chunks in (1, 2):
        with pytest.raises(ValueError, match=r"model\.concepts: 'dog .*takes 75\.$"):
            UnifiedConceptEditing(
                ["person", "dog " * 76],
                pretrained_model_name_or_path=str(small_sd),
                prompt_chunks=chunks,
            )
    with pytest.raises(ValueError, match=r"model\.target: "):
        UnifiedConceptEditing(["dog"], "a " * 76, pretrained_model_name_or_path=str(small_sd))


def test_a_concept_that_is_named_twice_counts_twice(small_sd: Path) -> None:
    given = {"pretrained_model_name_or_path": str(small_sd), "use_pooler": False}
    once = ForgetMeNot("dog", "a {concept}", **given).positions
    twice = ForgetMeNot("dog", "a {concept} of {concept}", **given)
    count = twice.backbone.count_tokens
    second = range(1 + count("a dog of "), 1 + count("a dog of dog"))
    assert twice.positions == [*once, *second]


def test_ddp_waits_for_no_gradient_that_forget_me_not_has_not(small_sd: Path) -> None:
    """On as many processes as one, of which DDP asks the same."""
    module = ForgetMeNot("dog", pretrained_model_name_or_path=str(small_sd))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        strategy="ddp",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, DataLoader([batch()] * 2, batch_size=None))
    assert trainer.global_step == 2


def test_forget_me_not_is_the_norm_of_the_concept_s_attention(small_sd: Path) -> None:
    module = ForgetMeNot("sks dog", pretrained_model_name_or_path=str(small_sd))
    assert module.positions == [4, 5, 6]  # begin, a, photo, of, sks, dog, end
    loss = module(batch())["loss"]
    loss.backward()
    ours = {n: p.grad for n, p in module.backbone.denoiser.named_parameters() if p.grad is not None}
    seen: list[torch.Tensor] = []
    published = copy.deepcopy(module)
    unet = published.backbone.denoiser
    for layer in (m for n, m in unet.named_modules() if n.endswith("attn2")):
        layer.set_processor(Looked(seen))
    unet.zero_grad()
    published(batch())  # by the module's own draws; the processors look
    norm = torch.cat([share[..., [4, 5, 6]].flatten() for share in seen]).norm()
    torch.testing.assert_close(loss, norm)
    norm.backward()
    for name, parameter in unet.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, ours[name], rtol=1e-3, atol=1e-6)
    assert any("attn2.to_k" in name for name in ours)


@pytest.mark.parametrize("kind", ["small_sd", "small_sd3"])
def test_attention_is_read_with_gradient_checkpointing_too(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """To the same gradients, and it is on again afterwards."""
    folder, found = str(request.getfixturevalue(kind)), []
    for wanted in (False, True):
        compute = Compute(gradient_checkpointing=wanted)
        module = ForgetMeNot("dog", pretrained_model_name_or_path=folder, compute=compute)
        module.train()  # as a trainer has it
        module(batch())["loss"].backward()
        denoiser = module.backbone.denoiser
        found.append({n: p.grad for n, p in denoiser.named_parameters() if p.grad is not None})
        assert wanted == any(
            getattr(m, "gradient_checkpointing", False) for m in denoiser.modules()
        )
    assert found[0]
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


@pytest.mark.parametrize("parts", ["all", "cross_attention"])
@pytest.mark.parametrize("kind", ["small_sd", "small_sdxl", "small_sd3"])
def test_forget_me_not_looks_away_from_the_concept(
    kind: str, parts: str, request: pytest.FixtureRequest
) -> None:
    """On U-Nets and on joint attention."""
    folder = str(request.getfixturevalue(kind))
    module = ForgetMeNot("dog", parts=parts, pretrained_model_name_or_path=folder)  # type: ignore[arg-type]
    learners = [p for p in module.parameters() if p.requires_grad]
    whole = sum(p.numel() for p in module.backbone.denoiser.parameters())
    assert (sum(p.numel() for p in learners) == whole) == (parts == "all")
    optimizer = torch.optim.AdamW(learners, lr=1e-2)
    first = module(batch())["attention"]
    for _ in range(8):
        optimizer.zero_grad()
        module(batch())["loss"].backward()
        optimizer.step()
    assert module(batch())["attention"] < 0.9 * first


def test_joint_attention_s_probabilities_are_those_of_the_layer(small_sd3: Path) -> None:
    """The words' share, read off by putting one for each word's value and nothing for the rest."""
    model = backbones.load(str(small_sd3)).requires_grad_(False)
    layer = next(iter(text_layers(model.denoiser).values()))
    width = layer.to_q.in_features
    chance = torch.Generator().manual_seed(0)
    hidden, text = (torch.randn(2, n, width, generator=chance) for n in (5, 3))
    share = probabilities(layer, hidden, text)
    assert share.shape == (2, layer.heads, 5, 3)
    for projection in (layer.to_v, layer.add_v_proj):
        projection.weight.zero_()
        projection.bias.fill_(float(projection is layer.add_v_proj))
    layer.to_out[0].weight.copy_(torch.eye(width))
    layer.to_out[0].bias.zero_()
    given = layer(hidden, encoder_hidden_states=text)[0]
    expected = share.sum(-1).transpose(1, 2).repeat_interleave(width // layer.heads, -1)
    torch.testing.assert_close(given, expected)


def test_uce_on_joint_attention_changes_what_a_word_means(small_sd3: Path) -> None:
    options = {
        "pretrained_model_name_or_path": str(small_sd3),
        "sampling": Sampling(num_inference_steps=2),
    }
    module = UnifiedConceptEditing(["dog"], "person", damping=1e-4, keep=["beach"], **options)
    inputs = {}
    for name, model in (("edited", module.backbone), ("base", module.base())):
        for word in ("dog", "person", "beach"):
            with torch.no_grad():
                text = model.embed([word])
                states = model.denoiser.context_embedder(text.hidden[0, 1])
                pooled = model.denoiser.time_text_embed.text_embedder.linear_1(text.pooled[0])
            inputs[name, word] = torch.cat([states, pooled])
    before = (inputs["base", "dog"] - inputs["base", "person"]).norm()
    assert (inputs["edited", "dog"] - inputs["base", "person"]).norm() < 0.2 * before
    assert (inputs["edited", "beach"] - inputs["base", "beach"]).norm() < 0.2 * before


def test_what_forget_me_not_cannot_do_is_said(small_sd: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.concept is empty"):
        ForgetMeNot()
    with pytest.raises(ValueError, match=r"it must hold '\{concept\}'"):
        ForgetMeNot("dog", "a photo")
    with pytest.raises(ValueError, match=r"model\.method"):
        ForgetMeNot("dog", method="lora")
    with pytest.raises(ValueError, match="the text encoder takes 75"):
        ForgetMeNot("dog " * 80, pretrained_model_name_or_path=str(small_sd))


def test_esd_x_on_joint_attention_trains_the_text_s_side(small_sd3: Path) -> None:
    module = ErasedStableDiffusion("dog", pretrained_model_name_or_path=str(small_sd3))
    free = [n for n, p in module.backbone.named_parameters() if p.requires_grad]
    assert free
    assert all(any(part in name for part in ("add_", "added_")) for name in free)
