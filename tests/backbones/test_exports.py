"""What is written is what was trained: python -m pytest tests/backbones/test_exports.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import lora
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

PROMPT = "a photo of <dog> on the beach"


def trained(model: Path, **adapters: bool) -> StableDiffusion:
    """A model whose adapters and new word hold something."""
    backbone = backbones.load(str(model)).requires_grad_(False)
    assert isinstance(backbone, StableDiffusion)
    if adapters:
        backbone.add_lora(rank=2, alpha=3, dropout=0.0, **adapters)
    backbone.add_tokens(["<dog>"], ["dog"])
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return backbone.eval()


def picture(backbone: StableDiffusion) -> Tensor:
    return backbone.sample([PROMPT], seeds=[1], num_inference_steps=3)


def stock_picture(pipeline: StableDiffusionPipeline) -> Tensor:
    return pipeline(
        PROMPT,
        latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
        num_inference_steps=3,
        output_type="pt",
    ).images


@pytest.mark.parametrize("dora", [False, True])
def test_stock_diffusers_loads_lora_and_tokens_to_the_same_picture(
    dora: bool, small_sd: Path, tmp_path: Path
) -> None:
    backbone = trained(small_sd, unet=True, text_encoder=True, dora=dora)
    expected = picture(backbone)
    backbone.save_lora(tmp_path)
    backbone.save_tokens(tmp_path / "tokens")
    files = ["pytorch_lora_weights.safetensors", "kohya_lora.safetensors"]
    for file in files[:1] if dora else files:  # diffusers leaves kohya's DoRA scales out
        stock = StableDiffusionPipeline.from_pretrained(small_sd, safety_checker=None)
        plain = stock_picture(stock)
        stock.load_textual_inversion(tmp_path / "tokens" / "dog.safetensors")
        stock.load_lora_weights(tmp_path, weight_name=file)
        assert torch.equal(stock_picture(stock), expected), file
        assert not torch.equal(plain, expected)


def test_every_new_word_has_a_file(small_sd: Path, tmp_path: Path) -> None:
    """Also where letters that no file name should have were all that told them apart."""
    backbone = backbones.load(str(small_sd))
    words = ["<a.1>", "<a1>", "<A1>", "<狗>", "<猫>"]
    backbone.add_tokens(words)
    assert isinstance(backbone, StableDiffusion)
    backbone.save_tokens(tmp_path)
    files = [path.name for path in tmp_path.iterdir()]
    assert len({name.casefold() for name in files}) == len(words)
    assert {key for name in files for key in load_file(tmp_path / name)} == set(words)


def test_diffusers_keys_are_the_ones_older_readers_know(small_sd: Path, tmp_path: Path) -> None:
    backbone = trained(small_sd, unet=True, text_encoder=True, dora=False)
    backbone.save_lora(tmp_path)
    keys = list(load_file(tmp_path / "pytorch_lora_weights.safetensors"))
    parts = ("text_encoder.text_model.encoder.layers.", "unet.")
    assert [sum(key.startswith(part) for key in keys) for part in parts] == [16, len(keys) - 16]


def test_kohya_keys_are_the_ones_other_programs_know(small_sd: Path, tmp_path: Path) -> None:
    backbone = trained(small_sd, unet=True, text_encoder=True, dora=False)
    backbone.save_lora(tmp_path)
    tensors = load_file(tmp_path / "kohya_lora.safetensors")
    unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    for module in (unet, text):
        assert tensors[f"{module}.alpha"].item() == 3
        assert tensors[f"{module}.lora_down.weight"].shape[0] == 2
        assert tensors[f"{module}.lora_up.weight"].shape[1] == 2
    kinds = {key.rsplit(".", 2)[-2] for key in tensors if "weight" in key}
    assert kinds == {"lora_down", "lora_up"}
    assert all(key.startswith(("lora_unet_", "lora_te_text_model_encoder_")) for key in tensors)


@pytest.mark.parametrize("convolutions", [False, True])
def test_kohya_scales_of_dora(convolutions: bool, small_sd: Path, tmp_path: Path) -> None:
    """ComfyUI multiplies a weight by its scale as it lies; earlier files had (rows, 1) for all."""
    backbone = trained(
        small_sd, unet=True, text_encoder=False, dora=True, convolutions=convolutions
    )
    backbone.save_lora(tmp_path)
    tensors = load_file(tmp_path / "kohya_lora.safetensors")
    scales = {key: tensor for key, tensor in tensors.items() if key.endswith(".dora_scale")}
    assert len(scales) == len(tensors) / 4
    for key, scale in scales.items():
        weight = tensors[key.replace("dora_scale", "lora_down.weight")]
        rows = len(tensors[key.replace("dora_scale", "lora_up.weight")])
        assert scale.shape == (rows, *[1] * (weight.dim() - 1))
    assert any(scale.dim() == 4 for scale in scales.values()) == convolutions
    earlier = {key: each.view(-1, 1) for key, each in scales.items()}
    save_file(tensors | earlier, tmp_path / "earlier.safetensors")
    lora.merge(backbone.unet)
    for file in ("kohya_lora.safetensors", "earlier.safetensors"):
        again: Any = backbones.load(str(small_sd))
        again.load_lora(str(tmp_path / file))
        torch.testing.assert_close(again.unet.state_dict(), backbone.unet.state_dict())


def test_a_folder_without_adapters_gives_the_same_picture(small_sd: Path, tmp_path: Path) -> None:
    backbone = trained(small_sd)
    expected = picture(backbone)
    backbone.save(tmp_path / "model")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    assert torch.equal(stock_picture(stock), expected)
    again = backbones.load(str(tmp_path / "model"))
    assert isinstance(again, StableDiffusion)
    assert torch.equal(picture(again), expected)
    assert torch.equal(picture(backbone), expected)  # saving left the model as it was


@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "kohya_lora.safetensors", ""])
def test_merged_adapters_give_the_same_picture_in_eight_bits(
    file: str, small_sd: Path, tmp_path: Path
) -> None:
    """Merging rounds each weight once, so the float pictures differ in the seventh digit."""
    backbone = trained(small_sd, unet=True, text_encoder=True, dora=False)
    expected = (picture(backbone) * 255).round()
    backbone.save_tokens(tmp_path)
    backbone.save_lora(tmp_path / "lora")
    other = backbones.load(str(small_sd))
    assert isinstance(other, StableDiffusion)
    other.load_tokens([str(tmp_path / "dog.safetensors")])
    other.load_lora(str(tmp_path / "lora" / file))
    assert torch.equal((picture(other) * 255).round(), expected)
    backbone.save(tmp_path / "model")
    merged = backbones.load(str(tmp_path / "model"))
    assert isinstance(merged, StableDiffusion)
    assert torch.equal((picture(merged) * 255).round(), expected)


@pytest.mark.parametrize("key", ["<cat>", "emb_params"])
def test_a_word_of_several_vectors_is_heard_whole(key: str, small_sd: Path, tmp_path: Path) -> None:
    """As in the stock pipeline. A1111 writes `emb_params`, and the word is the file's name."""
    file = tmp_path / "<cat>.safetensors"
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    save_file({key: vectors}, file)
    stock = StableDiffusionPipeline.from_pretrained(small_sd, safety_checker=None)
    stock.load_textual_inversion(file, token="<cat>")
    backbone = backbones.load(str(small_sd))
    backbone.load_tokens([str(file)])
    prompts = ["a photo of <cat> on the beach", "a photo of dog"]
    expected, _ = stock.encode_prompt(prompts, "cpu", 1, False)
    torch.testing.assert_close(backbone.embed(prompts).hidden, expected)
    assert [backbone.count_tokens(prompt) for prompt in prompts] == [9, 4]
    backbone.add_tokens(["<l0>"])  # more words, also right behind it
    assert backbone.count_tokens("<cat><l0>") == 4
