"""Each family of rectified flows beside stock diffusers: python -m pytest tests/backbones"""

import copy
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler
from flow_cases import CASES, Case, draw, load
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones.flow import FlowTransformer
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.modules import DreamBooth, GeometryErasure
from shortcut_lightning.modules.settings import Compute
from shortcut_lightning.safe_guidance import SafeGuidance

PROMPTS = ["a photo of sks dog", "a dog on the beach"]


@pytest.fixture(params=list(CASES), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def case(name: str) -> Case:
    return CASES[name]


@pytest.fixture(scope="module")
def folder(case: Case, name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.write(tmp_path_factory.mktemp("flows") / name.replace(" ", "-"))


def loaded(folder: Path) -> FlowTransformer:
    model = backbones.load(str(folder))
    assert isinstance(model, FlowTransformer)
    return model.requires_grad_(False).eval()


def ours(case: Case, model: Any, prompts: list[str] = PROMPTS, **more: Any) -> Tensor:
    pictures: Tensor = model.sample(
        prompts, seeds=range(len(prompts)), num_inference_steps=3, **case.own, **more
    )
    return pictures


def batch(**more: Any) -> TrainBatch:
    return TrainBatch(
        torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        ["a photo of sks dog", "a dog"],
        torch.tensor([False, True]),
        torch.tensor([3, 4]),
        **more,
    )


def test_stock_diffusers_samples_the_same_pictures(case: Case, folder: Path) -> None:
    found = ours(case, loaded(folder))
    torch.testing.assert_close(found, draw(case, load(folder), PROMPTS), rtol=1e-3, atol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_latents_are_normalised_and_decode_to_what_they_were(case: Case, folder: Path) -> None:
    model, images = loaded(folder), batch().images
    latents = model.encode(images).mean
    assert latents.shape == (2, 8, 8, 8)
    frames = images.unsqueeze(2) if isinstance(model.vae, AutoencoderKLQwenImage) else images
    with torch.no_grad():
        mode = model.vae.encode(frames * 2 - 1).latent_dist.mode()
        decoded = (model.vae.decode(mode).sample / 2 + 0.5).clamp(0, 1)
    expected = decoded.view_as(images)
    torch.testing.assert_close(model.decode(latents), expected, rtol=1e-4, atol=1e-5)
    assert (latents - mode.view_as(latents)).abs().max() > 1e-3


def test_a_training_step_is_the_examples(case: Case, folder: Path) -> None:
    """Loss and gradients: sigmas by index into the scheduler, x_s = (1 - s) x + s eps, target
    eps - x, prior preservation."""
    module = DreamBooth(str(folder), method="full", prior_loss_weight=0.7, **case.module)
    given = batch()
    loss = module(given)["loss"]
    loss.backward()
    pipeline, timesteps = load(folder), module.draw_timesteps(given)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    # The example counts from the noisy end.
    sigmas = scheduler.sigmas[len(scheduler.sigmas) - 1 - timesteps].view(-1, 1, 1, 1)
    latents = module.encode(given)
    noise = module.draw_noise(given, latents)
    noisy = (1 - sigmas) * latents + sigmas * noise
    pipeline.transformer.train()
    found = case.predict(pipeline, noisy, sigmas, list(given.prompts))
    errors = (found - (noise - latents)).square().mean((1, 2, 3))
    expected = errors[0] + 0.7 * errors[1]
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    theirs = dict(pipeline.transformer.named_parameters())
    compared = 0
    for key, parameter in module.backbone.denoiser.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[key].grad, rtol=1e-3, atol=1e-6)
            compared += 1
    assert compared > 20


def test_a_lora_is_exported_for_stock_loaders_and_comes_back(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    model = loaded(folder)
    learns = bool(model.learning_encoders)
    model.add_lora(unet=True, text_encoder=learns, rank=2, alpha=4, dropout=0.0, dora=False)
    plain = ours(case, model)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(key)))
    tuned = ours(case, model)
    assert (tuned - plain).abs().max() > 0.01
    with model.without_lora():
        torch.testing.assert_close(ours(case, model), plain)
    model.save_lora(tmp_path)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    again = loaded(folder)
    again.load_lora(str(file))
    torch.testing.assert_close(ours(case, again), tuned, rtol=1e-3, atol=1e-4)
    stock = load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock.load_lora_weights(tmp_path, weight_name=file.name)
    torch.testing.assert_close(draw(case, stock, PROMPTS), tuned, rtol=1e-3, atol=1e-4)
    model.save(tmp_path / "merged")
    torch.testing.assert_close(
        draw(case, load(tmp_path / "merged"), PROMPTS), tuned, rtol=1e-3, atol=1e-4
    )


def test_new_words_are_one_token_each_learn_and_are_exported(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    module = DreamBooth(
        str(folder),
        method="lora",
        rank=2,
        new_tokens=["<l27>", "zq"],
        token_initializers=["dog", ""],
    )
    model: Any = module.backbone
    assert [row.shape[1] for row in model.token_rows] == list(case.widths)
    for tokenizer, _ in model.vocabularies:
        for text in ("a dog<l27>", "a <l27> dog", "zq dog", "<l27><l27>"):
            pieces = tokenizer.tokenize(text)
            assert ("zq" in text) == ("zq" in pieces)
            assert pieces.count("<l27>") == text.count("<l27>")
        assert "zq" not in tokenizer.tokenize("a bazqar")
    given = batch()._replace(prompts=["a zq dog<l27>", "a dog"])
    module(given)["loss"].backward()
    assert all((row.grad != 0).any(1).all() for row in model.token_rows)
    learned = {key for key, each in module.named_parameters() if each.grad is not None}
    assert all("lora_" in key or key.endswith(".rows") for key in learned)
    with torch.no_grad():
        for row in model.token_rows:
            row.normal_(generator=torch.Generator().manual_seed(1))
    prompts = ["a photo of zq dog<l27>", "a <l27>"]
    expected = ours(case, model, prompts)
    assert (expected - ours(case, loaded(folder), prompts)).abs().max() > 1e-4
    model.save(tmp_path / "saved")
    torch.testing.assert_close(
        draw(case, load(tmp_path / "saved"), prompts), expected, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(ours(case, loaded(tmp_path / "saved"), prompts), expected)
    model.save_tokens(tmp_path / "tokens")
    again = loaded(folder)
    again.load_tokens(sorted(map(str, (tmp_path / "tokens").glob("*"))))
    for kind in ("hidden", "pooled"):
        here, there = (getattr(each.embed(prompts), kind) for each in (model, again))
        if here is not None:
            torch.testing.assert_close(here, there)


def test_a_folder_written_from_halves_is_float32(case: Case, folder: Path, tmp_path: Path) -> None:
    """Stock diffusers takes each part in the dtype it lies in, and no two together."""
    module = DreamBooth(str(folder), method="lora", compute=Compute(frozen_dtype="bf16"))
    module.backbone.save(tmp_path / "saved")
    assert draw(case, load(tmp_path / "saved"), PROMPTS).isfinite().all()
    kept = {p.dtype for p in loaded(tmp_path / "saved").parameters()}
    assert kept == {torch.float32}


def test_new_words_change_nothing_else(case: Case, folder: Path) -> None:
    model = loaded(folder)
    before, mark = model.embed(PROMPTS), model.fingerprint()
    model.add_tokens(["<l1>"])
    after = model.embed(PROMPTS)
    torch.testing.assert_close(before.hidden, after.hidden)
    if before.pooled is not None:
        torch.testing.assert_close(before.pooled, after.pooled)
    model.words = ""  # stages read prompts with them, so they count for the rest of it
    assert model.fingerprint() == mark


def test_the_full_method_learns_the_denoiser_and_clip_alone(case: Case, folder: Path) -> None:
    learns = bool(loaded(folder).learning_encoders)
    module = DreamBooth(str(folder), method="full", train_text_encoder=learns, **case.module)
    module(batch())["loss"].backward()
    learned = {key.split(".")[1] for key, p in module.named_parameters() if p.grad is not None}
    assert learned == {"transformer", *module.backbone.learning_encoders}


def test_a_language_model_is_not_trained(case: Case, folder: Path) -> None:
    if loaded(folder).learning_encoders:
        return
    with pytest.raises(ValueError, match=r"model.train_text_encoder is True: .* language model"):
        DreamBooth(str(folder), train_text_encoder=True)


def test_location_words_and_loss_weights_on_the_latent_grid(case: Case, folder: Path) -> None:
    module = GeometryErasure(grid_size=2, pretrained_model_name_or_path=str(folder), method="lora")
    weights = torch.ones(2, 1, 8, 8)
    weights[:, :, :4] = 0
    given = batch(loss_weights=weights)._replace(prompts=["a dog<l0><l3>", "a dog"])
    losses = module(given)
    latents, timesteps = module.encode(given), module.draw_timesteps(given)
    noise = module.draw_noise(given, latents)
    noisy = module.backbone.add_noise(latents, noise, timesteps)
    found = module.backbone.predict(noisy, timesteps, module.embed(given.prompts))
    errors = ((found - (noise - latents)) ** 2 * weights).mean((1, 2, 3))
    torch.testing.assert_close(losses["loss"], errors.sum())


def test_a_batch_is_what_its_rows_are(case: Case, folder: Path) -> None:
    model = loaded(folder)
    noisy = torch.randn(2, 8, 8, 8)
    steps = torch.tensor([100, 900])
    said = model.embed(PROMPTS)
    both = model.predict(noisy, steps, said)
    for row in range(2):
        part = slice(row, row + 1)
        alone = model.predict(noisy[part], steps[part], said.rows(part))
        torch.testing.assert_close(alone, both[part], rtol=1e-4, atol=1e-5)
    again = backbones.Conditioning.stack([said.rows(slice(0, 1)), said.rows(slice(1, 2))])
    torch.testing.assert_close(model.predict(noisy, steps, again), both)


def test_what_negative_prompts_do_is_told(
    case: Case, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(folder)
    plain, led = ours(case, model), ours(case, model, negative_prompts="noisy")
    assert ((led - plain).abs().max() > 1e-4) == case.guided
    assert ("egative prompts do nothing" in caplog.text) != case.guided
    assert bool(model.remarks) or case.guided


def test_a_checkpoint_distilled_to_a_few_steps_is_told_so_in_a_line(
    case: Case, folder: Path, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if name == "z-image":  # nothing but its name tells it
        folder = shutil.copytree(folder, tmp_path / "Z-Image-Turbo")
    module = DreamBooth(str(folder), method="lora")
    module.on_fit_start()
    told = [each for each in caplog.messages if "distilled to a few steps" in each]
    assert len(told) == (name in ("flux schnell", "klein distilled", "z-image"))
    assert all("\n" not in each for each in told)


USUAL = {"sd3": 7.5, "flux dev": 3.5, "klein": 4.0, "qwen-image": 4.0, "z-image": 5.0}


def test_where_nobody_says_a_guidance_it_is_the_usual_one_of_the_family(
    case: Case, folder: Path, name: str, tmp_path: Path
) -> None:
    """Class images of prior preservation are drawn so."""
    model = loaded(folder)
    asked: dict[str, Any] = {"seeds": [0], "num_inference_steps": 2}
    if name in USUAL:
        said = model.sample(PROMPTS[:1], **asked, guidance_scale=USUAL[name])
        assert torch.equal(model.sample(PROMPTS[:1], **asked), said)
    if name == "z-image":
        turbo = loaded(shutil.copytree(folder, tmp_path / "Z-Image-Turbo"))
        assert turbo.usual_guidance == 1.0
        turbo.save(tmp_path / "model")
        assert loaded(tmp_path / "model").remarks == turbo.remarks
        model.save(tmp_path / "base")
        assert not loaded(tmp_path / "base").remarks


def test_a_distilled_klein_is_asked_without_complaints(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if name == "klein distilled":
        loaded(folder).sample(PROMPTS[:1], seeds=[0], num_inference_steps=1, guidance_scale=4.0)
        assert "ignored" not in caplog.text


def test_a_flux_that_was_trained_out_of_its_distillation_is_not_said_to_be_distilled(
    folder: Path, name: str
) -> None:
    if name == "flux schnell":
        model = loaded(folder)
        assert "distilled to a few steps" in model.remarks[0]
        model.scheduler.register_to_config(use_dynamic_shifting=True)
        (remark,) = model.remarks
        assert "distilled" not in remark
        assert "true_cfg_scale alone, which is off" in remark


def test_safe_guidance_is_refused_where_it_is_not_known(case: Case, folder: Path) -> None:
    model = loaded(folder)
    if not model.steerable:
        with pytest.raises(ValueError, match=r"data\.erasing\.safety"):
            model.sample(["a"], seeds=[0], negative_prompts="b", safety=SafeGuidance())


def test_true_guidance_on_a_distilled_model_is_that_of_stock_diffusers(
    case: Case, folder: Path
) -> None:
    model = loaded(folder)
    if not model.takes_true_cfg:
        return
    model.true_cfg_scale = 2.5
    found = ours(case, model, negative_prompts="noisy")
    asked = replace(case, call=case.call | {"true_cfg_scale": 2.5})
    expected = draw(asked, load(folder), PROMPTS, "noisy")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    model.true_cfg_scale = 1.0
    assert (ours(case, model) - found).abs().max() > 1e-4


def test_a_fingerprint_is_one_of_the_weights(case: Case, folder: Path) -> None:
    model = loaded(folder)
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.denoiser.parameters()).add_(1)
    assert model.fingerprint() == loaded(folder).fingerprint() != other.fingerprint()
