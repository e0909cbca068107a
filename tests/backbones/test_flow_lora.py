"""LoRA files for rectified flows that others have trained, in the keys of several programs."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_cases import CASES, load
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shortcut_lightning import backbones

Tensors = dict[str, Tensor]


@pytest.fixture(params=list(CASES), scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = str(request.param)
    return CASES[name].write(tmp_path_factory.mktemp("flows") / name.replace(" ", "-"))


def family(name: str, tmp_path: Path) -> Path:
    return CASES[name].write(tmp_path / "model")


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[0])) / 10


def layer_of(model: Any) -> tuple[str, Any]:
    """The first layer of queries in the denoiser."""
    return next(
        (name, module)
        for name, module in model.denoiser.named_modules()
        if name.endswith(".to_q") and isinstance(module, nn.Linear)
    )


def learnt(folder: Path, tensors: Tensors, tmp_path: Path) -> Tensors:
    """What a file of these changes in the denoiser."""
    save_file(tensors, tmp_path / "a.safetensors")
    return learnt_from(folder, tmp_path / "a.safetensors")


def learnt_from(folder: Path, file: Path) -> Tensors:
    model: Any = backbones.load(str(folder))
    before = {name: each.clone() for name, each in model.denoiser.named_parameters()}
    model.load_lora(str(file))
    after = model.denoiser.named_parameters()
    return {n: each - before[n] for n, each in after if not torch.equal(each, before[n])}


def peft(prefix: str) -> Callable[[str, Tensor, Tensor], Tensors]:
    return lambda name, down, up: {
        f"{prefix}{name}.lora_A.weight": down,
        f"{prefix}{name}.lora_B.weight": up,
    }


def joined(prefix: str) -> Callable[[str, Tensor, Tensor], Tensors]:
    def write(name: str, down: Tensor, up: Tensor) -> Tensors:
        stem = prefix + name.replace(".", "_")
        return {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}

    return write


FORMATS = {
    "diffusers": peft("transformer."),
    "ai-toolkit, ComfyUI": peft("diffusion_model."),
    "PEFT": peft("base_model.model."),
    "bare": peft(""),
    "OneTrainer": joined("lora_transformer_"),
    "musubi": joined("lora_unet_"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_read_whole_at_the_strength_it_says(
    name: str, folder: Path, tmp_path: Path
) -> None:
    layer, module = layer_of(backbones.load(str(folder)))
    down, up = drawn(2, module.in_features), drawn(module.out_features, 2)
    tensors = FORMATS[name](layer, down, up)
    found = learnt(folder, tensors, tmp_path)
    assert found.keys() == {f"{layer}.weight"}
    torch.testing.assert_close(found[f"{layer}.weight"], up @ down)
    stem = min(tensors).rsplit(".lora_", 1)[0]
    halved = learnt(folder, tensors | {f"{stem}.alpha": torch.tensor(1.0)}, tmp_path)
    torch.testing.assert_close(halved[f"{layer}.weight"], up @ down / 2)


def test_magnitudes_of_a_dora_are_not_left_out(folder: Path, tmp_path: Path) -> None:
    layer, module = layer_of(backbones.load(str(folder)))
    down, up = drawn(2, module.in_features), drawn(module.out_features, 2)
    magnitude = torch.full((module.out_features, 1), 3.0)
    tensors = FORMATS["diffusers"](layer, down, up)
    tensors[f"transformer.{layer}.dora_scale"] = magnitude
    found = learnt(folder, tensors, tmp_path)[f"{layer}.weight"] + module.weight
    torch.testing.assert_close(found.norm(dim=1, keepdim=True), magnitude)


ORIGINAL = {
    "flux dev": "lora_unet_double_blocks_0_img_attn_qkv",
    "klein": "lora_unet_double_blocks_0_img_attn_qkv",
    "z-image": "lora_unet_layers_0_attention_qkv",
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_names_of_the_original_code_are_read_as_by_stock_diffusers(
    name: str, tmp_path: Path
) -> None:
    folder = family(name, tmp_path)
    tensors = {
        f"{ORIGINAL[name]}.lora_down.weight": drawn(2, 32),
        f"{ORIGINAL[name]}.lora_up.weight": drawn(96, 2),
        f"{ORIGINAL[name]}.alpha": torch.tensor(1.0),
    }
    found = learnt(folder, tensors, tmp_path)
    assert {name.rsplit(".", 2)[-2] for name in found} == {"to_q", "to_k", "to_v"}
    stock = load(folder)
    before = {name: each.clone() for name, each in stock.transformer.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock.load_lora_weights(tmp_path, weight_name="a.safetensors")
    stock.fuse_lora()
    stock.unload_lora_weights()
    theirs = dict(stock.transformer.named_parameters())
    for key, change in found.items():
        torch.testing.assert_close(change, theirs[key] - before[key])


MISTAKES: dict[str, tuple[Callable[[str], Tensors], str]] = {
    "half": (lambda key: {f"{key}.lora_A.weight": torch.ones(2, 32)}, "lacks its up matrix"),
    "NaN": (
        lambda key: {f"{key}.lora_{x}.weight": torch.full((2, 2), float("nan")) for x in "AB"},
        "no numbers",
    ),
    "another width": (
        lambda key: {
            f"{key}.lora_A.weight": torch.ones(2, 33),
            f"{key}.lora_B.weight": torch.ones(32, 2),
        },
        "is for another model",
    ),
    "Stable Diffusion 1.5": (
        lambda _: {
            f"lora_unet_down_blocks_0_attn1_to_q.lora_{x}.weight": torch.ones(2, 2)
            for x in ("down", "up")
        },
        "belong to no layer of this model: lora_unet_down_blocks_0",
    ),
    "a layer more": (
        lambda key: {
            f"{stem}.lora_{x}.weight": torch.ones(32, 32)
            for stem in (ORIGINAL["klein"], "lora_unet_no_such_layer")
            for x in ("down", "up")
        },
        "belong to no layer of this model",
    ),
    "a word": (lambda _: {"emb_params": torch.ones(1, 8)}, "no LoRA format known"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_read_whole_is_named_in_a_line(
    name: str, folder: Path, tmp_path: Path
) -> None:
    make, message = MISTAKES[name]
    model: Any = backbones.load(str(folder))
    before = {key: each.clone() for key, each in model.state_dict().items()}
    save_file(make(f"transformer.{layer_of(model)[0]}"), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        model.load_lora(str(tmp_path / "a.safetensors"))
    assert "\n" not in str(caught.value)
    assert "(model.lora)" in str(caught.value)
    assert all(torch.equal(each, before[key]) for key, each in model.state_dict().items())


def test_a_written_file_needs_no_settings_beside_its_matrices(folder: Path, tmp_path: Path) -> None:
    """Programs that do not read diffusers' metadata take it for what it is, too."""
    model: Any = backbones.load(str(folder))
    more: Any = {"ranks": {r".*\.0\..*": 3}}
    model.add_lora(unet=True, text_encoder=False, rank=2, alpha=6, dropout=0.0, dora=False, **more)
    for key, each in model.denoiser.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(each, 0, 0.1, generator=torch.Generator().manual_seed(len(key)))
    before = {key: each.clone() for key, each in backbones.load(str(folder)).state_dict().items()}
    model.save_lora(tmp_path)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    with_settings = learnt_from(folder, file)
    save_file(load_file(file), tmp_path / "bare.safetensors")
    bare = learnt_from(folder, tmp_path / "bare.safetensors")
    assert bare.keys() == with_settings.keys()
    for key, each in bare.items():
        torch.testing.assert_close(each, with_settings[key])
    model.save(tmp_path / "merged")
    merged = dict(backbones.load(str(tmp_path / "merged")).denoiser.named_parameters())
    for key, each in bare.items():
        torch.testing.assert_close(before[f"transformer.{key}"] + each, merged[key])


def test_where_there_is_none_it_is_said(tmp_path: Path) -> None:
    folder = family("flux dev", tmp_path)
    for name in ("a", "b"):
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    for path, message in {"missing": "No LoRA at", "": "found a.safetensors, b.saf"}.items():
        with pytest.raises(ValueError, match=message):
            backbones.load(str(folder)).load_lora(str(tmp_path / path))
