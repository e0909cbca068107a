"""The one edge to diffusers: python -m pytest tests/backbones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from shortcut_lightning import backbones
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

PROMPTS = ["a photo of sks person", "the dog on the beach"]


@pytest.fixture(scope="module")
def backbone(small_sd: Path) -> StableDiffusion:
    model = backbones.load(str(small_sd))
    assert isinstance(model, StableDiffusion)
    return model.eval()


def test_shapes_and_ranges(backbone: StableDiffusion) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    posterior = backbone.encode(images)
    assert posterior.mean.shape == posterior.std.shape == (2, 4, 8, 8)
    assert (posterior.std > 0).all()
    decoded = backbone.decode(posterior.mean)
    assert decoded.shape == images.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    hidden = backbone.embed(PROMPTS).hidden
    assert hidden.shape == (2, 77, 32)
    steps = torch.tensor([0, 999])
    assert backbone.predict(posterior.mean, steps, backbone.embed(PROMPTS)).shape == (2, 4, 8, 8)


def test_encode_is_in_the_scale_of_the_denoiser(backbone: StableDiffusion) -> None:
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    raw = backbone.vae.encode(images * 2 - 1).latent_dist.mean
    torch.testing.assert_close(backbone.encode(images).mean, raw * 0.18215)
    assert backbone.latent_scale == 0.18215


@pytest.mark.parametrize("overflows", [True, False])
def test_an_autoencoder_that_overflows_in_float16_stays_out_of_it(
    small_sd: Path, overflows: bool
) -> None:
    backbone = StableDiffusion.from_pretrained(small_sd)
    backbone.vae.register_to_config(force_upcast=overflows)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact = backbone.decode(backbone.encode(images).mean)
    with torch.autocast("cpu", torch.float16):
        half = backbone.decode(backbone.encode(images).mean)
    assert torch.equal(half, exact) == overflows
    with torch.autocast("cpu", torch.bfloat16):  # has float32's range
        assert not torch.equal(backbone.decode(backbone.encode(images).mean), exact)


def test_gradients_reach_the_pixels(backbone: StableDiffusion) -> None:
    images = torch.rand(1, 3, 32, 32).requires_grad_()
    backbone.encode(images).sample(torch.randn(1, 4, 8, 8)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["small_sd", "small_sd_v"])
def test_noise_and_target_agree_with_diffusers(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    model = backbones.load(str(folder))
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    latents, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    steps = torch.tensor([0, 500, 999])
    torch.testing.assert_close(
        model.add_noise(latents, noise, steps), scheduler.add_noise(latents, noise, steps)
    )
    expected = noise if kind == "small_sd" else scheduler.get_velocity(latents, noise, steps)
    torch.testing.assert_close(model.target(latents, noise, steps), expected)


def test_an_image_depends_on_its_own_seed_alone(backbone: StableDiffusion) -> None:
    together = backbone.sample(PROMPTS, seeds=[5, 6], num_inference_steps=2)
    alone = backbone.sample(PROMPTS[1:], seeds=[6], num_inference_steps=2)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)
    other = backbone.sample(PROMPTS[1:], seeds=[7], num_inference_steps=2)
    assert (other - alone).abs().max() > 1e-3


def test_sampling_agrees_with_the_stock_pipeline(backbone: StableDiffusion, small_sd: Path) -> None:
    stock = StableDiffusionPipeline.from_pretrained(small_sd, safety_checker=None)
    expected = stock(
        PROMPTS[0],
        negative_prompt="noisy",
        latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)),
        num_inference_steps=3,
        output_type="pt",
    ).images
    ours = backbone.sample(PROMPTS[:1], seeds=[3], negative_prompts="noisy", num_inference_steps=3)
    torch.testing.assert_close(ours, expected)


def test_another_sampler_by_name(backbone: StableDiffusion) -> None:
    kind = "DPMSolverMultistepScheduler"
    images = backbone.sample(PROMPTS[:1], seeds=[0], num_inference_steps=3, scheduler=kind)
    assert images.shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"'Euler'; allowed: .*EulerDiscreteScheduler"):
        backbone.sample(PROMPTS[:1], seeds=[0], scheduler="Euler")


def test_the_fingerprint_follows_the_weights_and_what_they_are_used_with(small_sd: Path) -> None:
    first, second = backbones.load(str(small_sd)), backbones.load(str(small_sd))
    assert first.fingerprint() == second.fingerprint()
    with torch.no_grad():
        next(second.parameters()).view(-1)[0] += 1e-4
    assert first.fingerprint() != second.fingerprint()
    for name, value in (
        ("prediction_type", "v_prediction"),
        ("alphas", first.alphas / 2),
        ("latent_scale", 2.0),
        ("prompt_chunks", 2),
        ("weighting_scheme", "none"),
        ("guidance", 3.5),
        ("true_cfg_scale", 4.0),
    ):
        other = backbones.load(str(small_sd))
        setattr(other, name, value)
        assert other.fingerprint() != first.fingerprint(), name


def test_the_fingerprint_is_of_the_pretrained_weights(small_sd: Path) -> None:
    plain, changed = backbones.load(str(small_sd)), backbones.load(str(small_sd))
    changed.add_lora(unet=True, text_encoder=True, rank=2, alpha=2, dropout=0.0, dora=False)
    assert changed.fingerprint() == plain.fingerprint()


def test_the_fingerprint_knows_how_new_words_begin(small_sd: Path) -> None:
    """Stages read prompts with them, and before they have learned."""
    word = "dog"
    models = [backbones.load(str(small_sd)) for _ in range(4)]
    for model, words, initializers in zip(
        models[1:], (["<s>"], ["<s>"], ["<s>"]), ([], [], [word]), strict=True
    ):
        model.add_tokens(words, initializers)
    plain, first, same, other = (model.fingerprint() for model in models)
    assert first == same
    assert len({plain, first, other}) == 3
    with torch.no_grad():
        models[1].token_rows[0].add_(1)
    assert models[1].fingerprint() == first


def test_pocket_loads_by_its_name() -> None:
    model = backbones.load("pocket")
    assert model.resolution == 64
    assert model.sample(["a photo of a person"], seeds=[0], num_inference_steps=2).shape == (
        1,
        3,
        64,
        64,
    )


def test_new_tokens_are_atomic_and_alone_learn(small_sd: Path) -> None:
    model = backbones.load(str(small_sd))
    assert isinstance(model, StableDiffusion)
    before = model.embed(["a photo of dog"]).hidden
    model.requires_grad_(False)
    model.add_tokens(["t@jx", "<noise>"], ["dog", "noisy"])
    ids = model.tokenizer("a t@jx t@jxes").input_ids
    assert ids.count(model.tokenizer.convert_tokens_to_ids("t@jx")) == 1  # not inside a word
    torch.testing.assert_close(model.embed(["a photo of dog"]).hidden, before)
    torch.testing.assert_close(model.embed(["a photo of t@jx"]).hidden, before)
    model.embed(["t@jx <noise>"]).hidden.sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "text_encoder.embeddings.token_embedding.rows"
    ]
    assert model.token_rows[0].grad is not None


def test_random_rows_have_the_vocabulary_norm(small_sd: Path) -> None:
    model = backbones.load(str(small_sd))
    assert isinstance(model, StableDiffusion)
    typical = model.text_encoder.get_input_embeddings().weight.norm(dim=1).median()
    model.add_tokens(["<l0>", "<l1>"])
    rows = model.token_rows[0]
    torch.testing.assert_close(rows.norm(dim=1), typical.expand(2))
    assert torch.cosine_similarity(rows[0], rows[1], dim=0).abs() < 0.9


def test_token_mistakes_are_named(small_sd: Path) -> None:
    model = backbones.load(str(small_sd))
    with pytest.raises(ValueError, match=r"new and distinct; the vocabulary has: dog</w>"):
        model.add_tokens(["dog</w>"])
    with pytest.raises(ValueError, match=r"'zebra' is \d tokens .*model.token_initializers"):
        model.add_tokens(["<n>"], ["zebra"])


def test_load_mistakes_are_named(tmp_path: Path, small_sd: Path) -> None:
    with pytest.raises(ValueError, match=r"folder without model_index.json"):
        backbones.load(str(tmp_path))
    with pytest.raises(ValueError, match=r"name_or_path: cannot load 'nobody/nothing'.*'pocket'"):
        backbones.load("nobody/nothing")
    with pytest.raises(ValueError, match=r"data.autoencoder: no folder or file '/nowhere'"):
        backbones.load("/nowhere", key="data.autoencoder")
    broken = shutil.copytree(small_sd, tmp_path / "sample")
    path = broken / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))
    with pytest.raises(ValueError, match=r"prediction_type 'sample'"):
        backbones.load(str(broken))
