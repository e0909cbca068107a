"""Adapters go in, act and come off by peft alone: pytest tests/backbones/test_adapters.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors import safe_open

from shortcut_lightning import backbones
from shortcut_lightning.backbones import lora
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

# What a reader finds in the metadata of a file, by part.
SETTINGS = {
    "unet": {"target_modules": ["to_k", "to_out.0", "to_q", "to_v"], "use_dora": True},
    "text_encoder": {"target_modules": ["k_proj", "out_proj", "q_proj", "v_proj"]},
}


@pytest.fixture
def no_foreign_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapter methods of diffusers and transformers fail, as with a peft they do not know."""
    from diffusers.loaders import peft as of_diffusers
    from transformers.integrations import peft as of_transformers

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("an adapter method of another library was called")

    for module in (of_diffusers, of_transformers):
        monkeypatch.setattr(module, "check_peft_version", refuse)
    monkeypatch.setattr("diffusers.loaders.lora_base.LoraBaseMixin.fuse_lora", refuse)
    monkeypatch.setattr("diffusers.loaders.lora_base.LoraBaseMixin.unload_lora_weights", refuse)


def adapted(model: Path) -> StableDiffusion:
    backbone = backbones.load(str(model)).requires_grad_(False).eval()
    assert isinstance(backbone, StableDiffusion)
    torch.manual_seed(3)
    backbone.add_lora(unet=True, text_encoder=True, rank=2, alpha=3, dropout=0.0, dora=True)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    return backbone


@pytest.mark.usefixtures("no_foreign_methods")
def test_no_other_library_s_adapters_are_on_the_way(small_sd: Path, tmp_path: Path) -> None:
    plain = backbones.load(str(small_sd))
    backbone = adapted(small_sd)
    assert backbone.fingerprint() == plain.fingerprint()
    learns = [name for name, each in backbone.named_parameters() if each.requires_grad]
    assert learns
    assert all("lora_" in name for name in learns)
    prompts = ["a photo of dog"]
    with backbone.without_lora():
        without = backbone.embed(prompts).hidden
    assert torch.equal(without, plain.embed(prompts).hidden)
    hidden = backbone.embed(prompts).hidden
    assert not torch.equal(hidden, without)
    assert learns == [name for name, each in backbone.named_parameters() if each.requires_grad]
    backbone.save_lora(tmp_path / "lora")
    backbone.save(tmp_path / "model")
    merged = backbones.load(str(tmp_path / "model"))
    torch.testing.assert_close(merged.embed(prompts).hidden, hidden, atol=1e-4, rtol=1e-3)
    assert not any("lora_" in name for name in merged.state_dict())
    with pytest.raises(ValueError, match="has an adapter already"):
        lora.insert(backbone.unet, LoraConfig(**lora.UNET))


def test_the_draws_are_those_of_stock_diffusers(small_sd: Path) -> None:
    """A run gives the numbers that it gave when diffusers put the adapters in."""
    stock = UNet2DConditionModel.from_pretrained(small_sd, subfolder="unet")
    unet = backbones.load(str(small_sd)).denoiser
    config = {"r": 2, "lora_alpha": 3, **lora.UNET}
    torch.manual_seed(3)
    stock.add_adapter(LoraConfig(**config))
    following = torch.rand(1)
    torch.manual_seed(3)
    lora.insert(unet, LoraConfig(**config))
    assert torch.equal(torch.rand(1), following)
    expected = stock.state_dict()
    assert list(unet.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unet.state_dict().items())


def test_an_export_has_the_keys_and_settings_that_readers_know(
    small_sd: Path, tmp_path: Path
) -> None:
    adapted(small_sd).save_lora(tmp_path)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        keys, metadata = set(file.keys()), file.metadata()
    layer = "text_encoder.text_model.encoder.layers.1.self_attn"
    names = [f"{each}_proj" for each in ("q", "k", "v", "out")]
    for name in names:
        assert {f"{layer}.{name}.lora_linear_layer.{way}.weight" for way in ("down", "up")} <= keys
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        kinds = ("lora.down.weight", "lora.up.weight", "lora_magnitude_vector")
        assert {f"{block}.{name}.{kind}" for kind in kinds} <= keys
    assert metadata.keys() == {"format", "lora_adapter_metadata"}
    settings = json.loads(metadata["lora_adapter_metadata"])
    for part, expected in SETTINGS.items():
        told = {key: settings[f"{part}.{key}"] for key in (*expected, "r", "lora_alpha")}
        assert told == expected | {"r": 2, "lora_alpha": 3}
        assert settings[f"{part}.peft_type"] == "LORA"
        assert settings[f"{part}.base_model_name_or_path"] is None  # a path of the user's machine


def test_the_same_adapter_is_the_same_file(small_sd: Path, tmp_path: Path) -> None:
    """Though safetensors and sets of names have another order each time."""
    backbone = adapted(small_sd)
    files = set()
    for number in range(8):
        for part in lora.adapted(backbone).values():
            config = part.peft_config["default"]  # type: ignore[index]
            config.target_modules = set(sorted(config.target_modules, reverse=number % 2 == 0))
        backbone.save_lora(tmp_path)
        files.add((tmp_path / "pytorch_lora_weights.safetensors").read_bytes())
    assert len(files) == 1
    assert str(small_sd).encode() not in files.pop()
