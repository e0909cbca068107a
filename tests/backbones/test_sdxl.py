"""SDXL's layout, against stock diffusers: python -m pytest tests/backbones/test_sdxl.py."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones.sdxl import StableDiffusionXL

PROMPT = "a photo of <dog> on the beach"


def loaded(folder: Path) -> StableDiffusionXL:
    backbone = backbones.load(str(folder))
    assert isinstance(backbone, StableDiffusionXL)
    return backbone.requires_grad_(False).eval()


def trained(folder: Path, **adapters: bool) -> StableDiffusionXL:
    """A model whose adapters and new word hold something."""
    backbone = loaded(folder)
    if adapters:
        backbone.add_lora(rank=2, alpha=3, dropout=0.0, dora=False, **adapters)
    backbone.add_tokens(["<dog>"], ["dog"])
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return backbone


def picture(backbone: StableDiffusionXL, prompt: str = PROMPT, negative: str = "") -> Tensor:
    return backbone.sample([prompt], seeds=[1], negative_prompts=negative, num_inference_steps=3)


def stock_picture(
    pipeline: StableDiffusionXLPipeline, prompt: str = PROMPT, negative: str | None = None
) -> Tensor:
    return pipeline(
        prompt,
        negative_prompt=negative,
        latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
        num_inference_steps=3,
        guidance_scale=7.5,
        output_type="pt",
    ).images


@pytest.mark.parametrize("negative", ["", "noisy"])
def test_sampling_agrees_with_the_stock_pipeline(negative: str, small_sdxl: Path) -> None:
    stock = StableDiffusionXLPipeline.from_pretrained(small_sdxl, add_watermarker=False)
    expected = stock_picture(stock, "a photo of sks dog", negative or None)
    got = picture(loaded(small_sdxl), "a photo of sks dog", negative)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_model_without_zeros_for_empty_prompts_keeps_its_way(
    small_sdxl: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(small_sdxl, tmp_path / "model")
    index = folder / "model_index.json"
    settings = json.loads(index.read_text()) | {"force_zeros_for_empty_prompt": False}
    index.write_text(json.dumps(settings))
    backbone = loaded(folder)
    stock = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    torch.testing.assert_close(
        picture(backbone, "a dog"), stock_picture(stock, "a dog"), atol=1e-5, rtol=0
    )
    assert (picture(backbone, "a dog") - picture(loaded(small_sdxl), "a dog")).abs().max() > 1e-4
    assert (backbone.embed([""]).hidden != 0).any()
    backbone.save(tmp_path / "saved")
    assert not loaded(tmp_path / "saved").zeros_for_empty


def test_an_empty_prompt_is_zeros_wherever_it_is_embedded(small_sdxl: Path) -> None:
    stock = StableDiffusionXLPipeline.from_pretrained(small_sdxl, add_watermarker=False)
    expected = stock.encode_prompt("a dog", device="cpu", do_classifier_free_guidance=True)
    said = loaded(small_sdxl).embed(["a dog", ""])
    assert said.pooled is not None
    torch.testing.assert_close(said.hidden, torch.cat(expected[:2]))
    torch.testing.assert_close(said.pooled, torch.cat(expected[2:]))
    assert not said.hidden[1].any()
    assert not said.pooled[1].any()


def test_the_denoiser_hears_both_encoders_the_pooled_state_and_the_size(small_sdxl: Path) -> None:
    backbone = loaded(small_sdxl)
    said = backbone.embed(["a photo of sks dog", "noisy"])
    assert said.hidden.shape == (2, 77, 80)
    assert said.pooled is not None
    assert said.pooled.shape == (2, 24)
    noisy, steps = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    usual = backbone.predict(noisy, steps, said)
    assert usual.shape == noisy.shape
    other = backbones.Conditioning(said.hidden, said.pooled.flip(0))
    assert not torch.allclose(usual, backbone.predict(noisy, steps, other))
    text = said.hidden.clone()
    text[:, :, 32:] = 0
    deaf = backbones.Conditioning(text, said.pooled)
    assert not torch.allclose(usual, backbone.predict(noisy, steps, deaf))


def test_a_new_word_does_not_move_the_pooled_state_s_place(small_sdxl: Path) -> None:
    """With the published config's legacy end id, the highest id counts as the end of the text."""
    backbone = loaded(small_sdxl)
    before = backbone.embed(["a photo of dog on the beach"])
    backbone.add_tokens(["<dog>"], ["dog"])
    after = backbone.embed([PROMPT])
    assert before.pooled is not None
    assert after.pooled is not None
    torch.testing.assert_close(after.pooled, before.pooled)
    torch.testing.assert_close(after.hidden, before.hidden)
    assert [row.shape for row in backbone.token_rows] == [(1, 32), (1, 48)]


def test_a_saved_folder_gives_the_same_picture_in_stock_diffusers(
    small_sdxl: Path, tmp_path: Path
) -> None:
    backbone = trained(small_sdxl)
    expected = picture(backbone)
    backbone.save(tmp_path / "model")
    stock = StableDiffusionXLPipeline.from_pretrained(tmp_path / "model", add_watermarker=False)
    torch.testing.assert_close(stock_picture(stock), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(picture(loaded(tmp_path / "model")), expected)
    torch.testing.assert_close(picture(backbone), expected)  # saving left the model as it was


@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "kohya_lora.safetensors"])
def test_stock_diffusers_loads_the_lora_to_the_same_picture(
    file: str, small_sdxl: Path, tmp_path: Path
) -> None:
    backbone = trained(small_sdxl, unet=True, text_encoder=True)
    sentence = "a photo of dog on the beach"
    expected = picture(backbone, sentence)
    backbone.save_lora(tmp_path)
    stock = StableDiffusionXLPipeline.from_pretrained(small_sdxl, add_watermarker=False)
    plain = stock_picture(stock, sentence)
    stock.load_lora_weights(tmp_path, weight_name=file)
    torch.testing.assert_close(stock_picture(stock, sentence), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(plain, expected, atol=1e-3)
    merged = loaded(small_sdxl)
    merged.load_lora(str(tmp_path / file))
    torch.testing.assert_close(picture(merged, sentence), expected, atol=1e-3, rtol=0)


def test_kohya_keys_are_the_original_code_s(small_sdxl: Path, tmp_path: Path) -> None:
    backbone = trained(small_sdxl, unet=True, text_encoder=True)
    backbone.save_lora(tmp_path)
    words = [
        key for key in load_file(tmp_path / "pytorch_lora_weights.safetensors") if "text" in key
    ]
    assert {key.split(".encoder.")[0] for key in words} == {
        "text_encoder.text_model",
        "text_encoder_2.text_model",
    }
    stems = {key.partition(".")[0] for key in load_file(tmp_path / "kohya_lora.safetensors")}
    assert {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_input_blocks_5_1_transformer_blocks_1_attn2_to_out_0",
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_k",
        "lora_unet_output_blocks_2_1_transformer_blocks_0_attn1_to_v",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_1_self_attn_out_proj",
    } <= stems
    assert not any("down_blocks" in stem or "up_blocks" in stem for stem in stems)


def test_words_are_written_as_other_programs_read_them(small_sdxl: Path, tmp_path: Path) -> None:
    backbone = trained(small_sdxl)
    backbone.save_tokens(tmp_path)
    file = tmp_path / "dog.safetensors"
    assert {key: row.shape for key, row in load_file(file).items()} == {
        "clip_l": (1, 32),
        "clip_g": (1, 48),
    }
    other = loaded(small_sdxl)
    other.load_tokens([str(file)])
    torch.testing.assert_close(other.embed([PROMPT]).hidden, backbone.embed([PROMPT]).hidden)
    other_pooled, own_pooled = other.embed([PROMPT]).pooled, backbone.embed([PROMPT]).pooled
    torch.testing.assert_close(other_pooled, own_pooled)
    save_file({"<dog>": torch.zeros(1, 32)}, tmp_path / "sd15.safetensors")
    with pytest.raises(ValueError, match=r"for a model with one text encoder and vectors 32 wide"):
        other.load_tokens([str(tmp_path / "sd15.safetensors")])


def test_a_word_of_several_vectors_is_heard_whole(small_sdxl: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vectors = {"clip_l": torch.randn(3, 32), "clip_g": torch.randn(3, 48)}
    save_file(vectors, tmp_path / "<cat>.safetensors")
    stock = StableDiffusionXLPipeline.from_pretrained(small_sdxl, add_watermarker=False)
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        stock.load_textual_inversion(
            vectors[name],
            token="<cat>",
            tokenizer=getattr(stock, f"tokenizer{suffix}"),
            text_encoder=getattr(stock, f"text_encoder{suffix}"),
        )
    backbone = loaded(small_sdxl)
    backbone.load_tokens([str(tmp_path / "<cat>.safetensors")])
    prompts = ["a photo of <cat> on the beach"]
    expected, _, _, _ = stock.encode_prompt(prompts, device="cpu")
    torch.testing.assert_close(backbone.embed(prompts).hidden, expected)


def test_other_families_are_named(small_sdxl: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small_sdxl, tmp_path / "flux")
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "SanaPipeline"}))
    with pytest.raises(ValueError, match=r"it is a SanaPipeline; .* XL and 3.* are known"):
        backbones.load(str(folder))
