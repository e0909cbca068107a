"""Stable Diffusion 3's layout, beside stock diffusers: python -m pytest tests/backbones"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
)

from shortcut_lightning import backbones
from shortcut_lightning.backbones.base import WeightingScheme
from shortcut_lightning.backbones.stable_diffusion3 import StableDiffusion3
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import Sampling

PROMPTS = ["a photo of sks dog", "a dog on the beach"]
NO_T5 = {"text_encoder_3": None, "tokenizer_3": None}


@pytest.fixture(scope="module")
def model(small_sd3: Path) -> StableDiffusion3:
    found = backbones.load(str(small_sd3))
    assert isinstance(found, StableDiffusion3)
    return found


def stock(folder: Path) -> StableDiffusion3Pipeline:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, **NO_T5)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(folder: Path, **more: object) -> torch.Tensor:
    """What stock diffusers samples, each picture from its own generator."""
    pictures = [
        stock(folder)(
            prompt,
            negative_prompt="noisy",
            num_inference_steps=3,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **more,
        ).images
        for seed, prompt in enumerate(PROMPTS)
    ]
    return torch.cat(pictures)


def ours(model: StableDiffusion3) -> torch.Tensor:
    return model.sample(
        PROMPTS, seeds=[0, 1], negative_prompts="noisy", num_inference_steps=3, guidance_scale=4.0
    )


def test_stock_diffusers_samples_the_same_pictures(
    model: StableDiffusion3, small_sd3: Path
) -> None:
    torch.testing.assert_close(ours(model), drawn(small_sd3), rtol=1e-3, atol=1e-4)


def test_a_folder_may_say_how_many_zeros_stand_for_the_t5(small_sd3: Path, tmp_path: Path) -> None:
    model = backbones.load(str(small_sd3))
    model.max_sequence_length = 0
    assert model.embed(["a dog"]).hidden.shape == (1, 77, 96)
    model.save(tmp_path / "saved")
    again = backbones.load(str(tmp_path / "saved"))
    assert again.max_sequence_length == 0
    expected = drawn(tmp_path / "saved", max_sequence_length=0)
    torch.testing.assert_close(ours(again), expected, rtol=1e-3, atol=1e-4)


def test_latents_are_shifted_and_scaled_as_the_pipeline_does(
    model: StableDiffusion3, small_sd3: Path
) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    vae = stock(small_sd3).vae
    with torch.no_grad():
        mode = vae.encode(images * 2 - 1).latent_dist.mode()
        expected = (mode - vae.config.shift_factor) * vae.config.scaling_factor
        torch.testing.assert_close(model.encode(images).mean, expected)
        decoded = (vae.decode(mode).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(model.decode(expected), decoded, rtol=1e-4, atol=1e-5)


def test_a_training_step_is_the_examples(small_sd3: Path) -> None:
    """Loss and gradients of diffusers' DreamBooth example, from its documented behaviour: sigmas
    by index into the scheduler, x_s = (1 - s) x + s eps, target eps - x, prior preservation.

    With its `precondition_outputs` 0; by default it compares clean latents, x_s - s p with x."""
    module = DreamBooth(str(small_sd3), method="full", prior_loss_weight=0.7)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = TrainBatch(
        images, ["a photo of sks dog", "a dog"], torch.tensor([False, True]), torch.tensor([3, 4])
    )
    loss = module(batch)["loss"]
    loss.backward()

    pipeline, timesteps = stock(small_sd3), module.draw_timesteps(batch)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    # The example counts from the noisy end.
    sigmas = scheduler.sigmas[len(scheduler.sigmas) - 1 - timesteps].view(-1, 1, 1, 1)
    latents = module.encode(batch)
    noise = module.draw_noise(batch, latents)
    hidden, _, pooled, _ = pipeline.encode_prompt(
        batch.prompts, None, None, do_classifier_free_guidance=False
    )
    found = pipeline.transformer(
        hidden_states=(1 - sigmas) * latents + sigmas * noise,
        encoder_hidden_states=hidden,
        pooled_projections=pooled,
        timestep=sigmas.flatten() * 1000,
        return_dict=False,
    )[0]
    errors = (found - (noise - latents)).square().mean((1, 2, 3))
    expected = errors[0] + 0.7 * errors[1]
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    theirs = dict(pipeline.transformer.named_parameters())
    for name, parameter in module.backbone.denoiser.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-6)


def test_timesteps_are_logit_normal(model: StableDiffusion3) -> None:
    steps = model.draw_timesteps(4000, torch.Generator().manual_seed(0)).float() / 1000
    logits = steps.clamp(1e-3, 1 - 1e-3).logit()
    assert abs(float(logits.mean())) < 0.05
    assert float(logits.std()) == pytest.approx(1, abs=0.05)
    assert model.draw_timesteps(4000, torch.Generator().manual_seed(0), least=400).min() == 400


@pytest.mark.parametrize("scheme", ["none", "mode", "sigma_sqrt", "cosmap"])
def test_other_schemes_are_those_of_diffusers(
    model: StableDiffusion3, small_sd3: Path, scheme: WeightingScheme
) -> None:
    """Its own draw, by index into its timesteps from the noisy end, has the same distribution; the
    weights are the same."""
    mine = copy.deepcopy(model)
    mine.weighting_scheme = scheme
    steps = mine.draw_timesteps(20000, torch.Generator().manual_seed(0))
    drawn = compute_density_for_timestep_sampling(
        scheme, 20000, 0, 1, 1.29, generator=torch.Generator().manual_seed(1)
    )
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(small_sd3 / "scheduler")
    sigmas = scheduler.sigmas[(drawn * 1000).long().clamp(max=999)]
    levels = torch.linspace(0.05, 0.95, 7)
    torch.testing.assert_close(
        mine.sigmas[steps].quantile(levels), sigmas.quantile(levels), atol=0.02, rtol=0
    )
    weights = mine.loss_weights(steps[:8])
    expected = compute_loss_weighting_for_sd3(scheme, mine.sigmas[steps[:8]])
    torch.testing.assert_close(torch.ones(8) if weights is None else weights, expected)
    loss = DreamBooth(str(small_sd3), weighting_scheme=scheme).loss
    ones, zeros = torch.ones(8, 1, 2, 2), torch.zeros(8, 1, 2, 2)
    found = loss(ones, zeros, torch.ones(8), torch.zeros(8).bool(), None, weights)["loss"]
    torch.testing.assert_close(found, expected.mean())


def test_u_shaped_draws_keep_off_the_middle(model: StableDiffusion3) -> None:
    mine = copy.deepcopy(model)
    mine.weighting_scheme = "u_shaped"
    share = mine.draw_timesteps(20000, torch.Generator().manual_seed(0)).float() / 1000
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    middle = ((share > 0.25) & (share < 0.75)).float().mean()
    assert float(middle) == pytest.approx(1 / 3, abs=0.01)  # of the arcsine law; 1 / 2 if uniform


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("weighting_scheme is mode", {"weighting_scheme": "mode"}),
        ("train_guidance is 3.5", {"train_guidance": 3.5}),
        ("sampling.true_cfg_scale is 2.0", {"sampling": Sampling(true_cfg_scale=2.0)}),
    ],
)
def test_what_means_nothing_elsewhere_is_refused(
    small_sd: Path, key: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"model.{key}: "):
        DreamBooth(str(small_sd), **settings)


@pytest.mark.parametrize("setting", ["snr_gamma", "noise_offset"])
def test_what_means_nothing_for_a_flow_is_refused(small_sd3: Path, setting: str) -> None:
    with pytest.raises(ValueError, match=f"model.{setting} is 0.1: .*rectified flow"):
        DreamBooth(str(small_sd3), **{setting: 0.1})


def test_lora_is_exported_for_stock_loaders_and_comes_back(small_sd3: Path, tmp_path: Path) -> None:
    model = backbones.load(str(small_sd3))
    model.add_lora(unet=True, text_encoder=True, rank=2, alpha=4, dropout=0.0, dora=False)
    plain = copy.deepcopy(ours(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    tuned = ours(model)
    assert (tuned - plain).abs().max() > 0.01
    with model.without_lora():
        torch.testing.assert_close(ours(model), plain)
    model.save_lora(tmp_path)
    again = backbones.load(str(small_sd3))
    again.load_lora(str(tmp_path / "pytorch_lora_weights.safetensors"))
    torch.testing.assert_close(ours(again), tuned, rtol=1e-3, atol=1e-4)
    model.save(tmp_path / "merged")
    torch.testing.assert_close(drawn(tmp_path / "merged"), tuned, rtol=1e-3, atol=1e-4)
    adapted = {n for n, p in model.denoiser.named_parameters() if "lora_A" in n}
    assert any("add_q_proj" in name for name in adapted)  # of the text's side too


def test_new_words_are_learned_by_both_text_encoders(small_sd3: Path, tmp_path: Path) -> None:
    model = backbones.load(str(small_sd3))
    before = model.embed(["a dog"])
    model.add_tokens(["<l1>"])
    assert [row.shape for row in model.token_rows] == [(1, 32), (1, 48)]
    after = model.embed(["a dog"])
    torch.testing.assert_close(before.pooled, after.pooled)
    with_word = model.embed(["a dog<l1>"])
    assert (with_word.hidden - after.hidden).abs().max() > 1e-3
    assert (with_word.pooled - after.pooled).abs().max() > 1e-3
    model.save(tmp_path / "saved")
    again = backbones.load(str(tmp_path / "saved"))
    torch.testing.assert_close(again.embed(["a dog<l1>"]).hidden, with_word.hidden)
    hidden, _, pooled, _ = stock(tmp_path / "saved").encode_prompt(
        ["a dog<l1>"], None, None, do_classifier_free_guidance=False
    )
    torch.testing.assert_close(hidden, with_word.hidden, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pooled, with_word.pooled, rtol=1e-4, atol=1e-4)


def test_another_pipeline_is_still_refused(small_sd3: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SanaPipeline"}))
    with pytest.raises(ValueError, match=r"it is a SanaPipeline; .* XL and 3.* are known"):
        backbones.load(str(tmp_path))


def test_the_fingerprint_knows_the_shift(model: StableDiffusion3) -> None:
    before = model.fingerprint()
    other = copy.deepcopy(model)
    other.latent_shift += 0.1
    assert other.fingerprint() != before
