"""The shipped weights load by the ordinary calls, in float32, and do what they are for."""

import json

import pytest
import torch

from shortcut_lightning.pocket import FLOW_WEIGHTS, WEIGHTS, networks, world
from shortcut_lightning.pocket.labels import ATTRIBUTES, labels


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def drawings() -> list[world.Drawing]:
    return [world.draw(77, index, views=2, quality="clean") for index in range(24)]


@pytest.fixture(scope="module")
def images(drawings: list[world.Drawing]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(d.image).permute(2, 0, 1) / 255 for d in drawings])


def test_pipeline_samples_a_picture(pipeline) -> None:
    result = pipeline("a photo of a person", num_inference_steps=2, output_type="pt").images
    assert result.shape == (1, 3, 64, 64)
    assert torch.isfinite(result).all()


def test_everything_computes_in_float32_and_fits_the_budget(pipeline) -> None:
    parts = (pipeline.vae, pipeline.unet, pipeline.text_encoder)
    assert {part.dtype for part in parts} == {torch.float32}
    total = sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file())
    assert total < 16 * 2**20
    assert sum(path.stat().st_size for path in FLOW_WEIGHTS.rglob("*")) <= 24 * 2**20


def test_text_encoder_keys_are_the_ones_every_reader_knows() -> None:
    from safetensors import safe_open

    with safe_open(WEIGHTS / "text_encoder" / "model.safetensors", "pt") as file:
        assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118
    config = json.loads((WEIGHTS / "text_encoder" / "config.json").read_text())
    assert config["eos_token_id"] == config["vocab_size"] - 1


def test_latents_have_unit_deviation(pipeline, images: torch.Tensor) -> None:
    with torch.no_grad():
        latents = pipeline.vae.encode(images * 2 - 1).latent_dist.mode()
    assert float(latents.std() * pipeline.vae.config.scaling_factor) == pytest.approx(1, abs=0.2)


def test_identity_encoder_knows_people_again(images: torch.Tensor) -> None:
    vectors = networks.load_identity_encoder()(images)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(images)), atol=1e-4)
    pairs = vectors.view(-1, 2, vectors.shape[1])
    same = (pairs[:, 0] * pairs[:, 1]).sum(-1).mean()
    other = (pairs[:, 0] * pairs[:, 1].roll(1, 0)).sum(-1).mean()
    assert same > other + 0.4


def test_classifier_reads_the_factors(images: torch.Tensor, drawings: list[world.Drawing]) -> None:
    classifier = networks.load_attribute_classifier()
    logits = classifier(images)
    rows = torch.stack([torch.from_numpy(labels(d.identity, d.scene)).long() for d in drawings])
    right = [
        (logits[name].argmax(-1) == rows[:, column]).float().mean()
        for column, name in enumerate(ATTRIBUTES)
    ]
    assert torch.stack(right).mean() > 0.9
    assert classifier.features(images).shape == (24, classifier.width)


def test_clip_tells_captions_apart(images: torch.Tensor, drawings: list[world.Drawing]) -> None:
    from transformers import CLIPTokenizer

    model, tokenizer = networks.load_clip(), CLIPTokenizer.from_pretrained(WEIGHTS / "clip")
    some = range(0, 24, 2)
    texts = [drawings[index].caption for index in some]
    tokens = tokenizer(texts, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        scores = model(pixel_values=images[::2] * 2 - 1, input_ids=tokens.input_ids)
    best = scores.logits_per_image.argmax(-1)
    assert (best == torch.arange(len(texts))).float().mean() > 0.6


def test_restoration_keeps_size_and_range_and_lets_gradients_through(
    images: torch.Tensor,
) -> None:
    noisy = torch.nn.functional.interpolate(images[:4], 80).requires_grad_()
    restored = networks.load_restoration()(noisy)
    assert restored.shape == noisy.shape
    assert 0 <= restored.min().item() <= restored.max().item() <= 1
    assert torch.autograd.grad(restored.sum(), noisy)[0].abs().sum() > 0
