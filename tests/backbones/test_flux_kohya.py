"""FLUX.1's LoRAs in kohya's names: python -m pytest tests/backbones/test_flux_kohya.py."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from flow_cases import CASES, draw, load
from flow_models import write_small_flux
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import flux_kohya

FILE = "kohya_lora.safetensors"
PROMPTS = ["a photo of sks dog", "a dog on the beach"]
RANKS = {r".*\.to_k": 3, r".*\.add_v_proj": 1}  # beside 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small_flux(tmp_path / "model")


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(folder: Path, **more: Any) -> Any:
    """A model whose adapters hold something."""
    model: Any = backbones.load(str(folder)).requires_grad_(False).eval()
    settings = {"rank": 2, "alpha": 6, "dropout": 0.0, "dora": False, "ranks": RANKS}
    model.add_lora(unet=True, text_encoder=True, **(settings | more))
    for key, each in model.named_parameters():
        if "lora_B" in key:
            each.data.normal_(0, 0.2, generator=chance(len(key)))
    return model


def pictures(model: Any) -> Tensor:
    found: Tensor = model.sample(PROMPTS, seeds=[0, 1], num_inference_steps=3, guidance_scale=3.5)
    return found


def test_layers_have_the_names_that_kohya_gives_them(folder: Path, tmp_path: Path) -> None:
    trained(folder).save_lora(tmp_path)
    tensors = load_file(tmp_path / FILE)
    transformer = {key.partition(".")[0] for key in tensors if key.startswith("lora_unet_")}
    double = ("img_attn_qkv", "img_attn_proj", "txt_attn_qkv", "txt_attn_proj")
    assert transformer == {
        *(f"lora_unet_double_blocks_0_{layer}" for layer in double),
        *(f"lora_unet_single_blocks_{number}_linear1" for number in (0, 1)),
    }
    others = {key for key in tensors if not key.startswith("lora_unet_")}
    assert all(key.startswith("lora_te1_text_model_encoder_layers_") for key in others)
    assert len(others) == 3 * 8  # two layers with four projections each
    for side, rank in {"img": 7, "txt": 5}.items():
        name = f"lora_unet_double_blocks_0_{side}_attn_qkv"
        assert tensors[f"{name}.lora_down.weight"].shape == (rank, 32)
        assert tensors[f"{name}.lora_up.weight"].shape == (96, rank)
        assert tensors[f"{name}.alpha"].item() == 18
    up = tensors["lora_unet_single_blocks_0_linear1.lora_up.weight"]
    assert up.shape == (3 * 32 + 128, 7)
    assert not up[96:].any()  # the perceptron's rows have no adapter


@pytest.mark.parametrize("ranks", [RANKS, {}])
def test_what_is_written_is_read_as_the_same_model(
    ranks: dict[str, int], folder: Path, tmp_path: Path
) -> None:
    model = trained(folder, ranks=ranks)
    model.save_lora(tmp_path)
    model.save(tmp_path / "merged")
    expected = backbones.load(str(tmp_path / "merged")).state_dict()
    again: Any = backbones.load(str(folder))
    before = {key: each.clone() for key, each in again.state_dict().items()}
    again.load_lora(str(tmp_path / FILE))
    found = again.state_dict()
    assert found.keys() == expected.keys()
    changed = {key for key in before if not torch.equal(before[key], expected[key])}
    assert any("single_transformer_blocks" in key for key in changed)
    assert any("text_encoder" in key for key in changed)
    for key, each in expected.items():
        torch.testing.assert_close(found[key], each)
        assert key in changed or torch.equal(found[key], before[key])


def test_stock_diffusers_makes_the_same_picture(tmp_path: Path) -> None:
    """Of double blocks: its converter has the width of published single blocks written into it."""
    folder = write_small_flux(tmp_path / "model", single_layers=0)
    model = trained(folder)
    model.save_lora(tmp_path)
    case, stock = CASES["flux dev"], load(folder)
    plain = draw(case, stock, PROMPTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock.load_lora_weights(tmp_path, weight_name=FILE)
    found = draw(case, stock, PROMPTS)
    assert (found - plain).abs().max() > 0.01
    torch.testing.assert_close(found, pictures(model), rtol=1e-3, atol=1e-4)


def test_stock_diffusers_takes_a_published_single_block_apart() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        network = FluxTransformer2DModel(num_layers=0, num_single_layers=1)
    outputs = {"attn.to_q": 3072, "attn.to_v": 3072, "proj_mlp": 12288, "proj_out": 3072}
    layers = {
        f"single_transformer_blocks.0.{name}": {
            "lora_down.weight": torch.randn(rank, 15360 if name == "proj_out" else 3072),
            "lora_up.weight": torch.randn(width, rank),
            "alpha": torch.tensor(float(alpha)),
        }
        for (name, width), rank, alpha in zip(
            outputs.items(), (2, 3, 4, 5), (1, 9, 2, 5), strict=True
        )
    }
    written = flux_kohya.fused(network, layers)
    block = "lora_unet_single_blocks_0"
    assert written.keys() == {f"{block}_linear1", f"{block}_linear2"}
    found = FluxPipeline.lora_state_dict(
        {f"{name}.{kind}": each for name, own in written.items() for kind, each in own.items()}
    )
    for name, own in layers.items():
        down, up = (found[f"transformer.{name}.lora_{x}.weight"] for x in "AB")
        given = torch.randn(down.shape[1], generator=chance(0))
        scale = own["alpha"] / len(own["lora_down.weight"])
        expected = own["lora_up.weight"] @ (own["lora_down.weight"] @ given) * scale
        torch.testing.assert_close(up @ (down @ given), expected, rtol=1e-4, atol=1e-2)
    assert not found["transformer.single_transformer_blocks.0.attn.to_k.lora_B.weight"].any()


def test_alike_scaled_adapters_are_written_as_they_learned(folder: Path, tmp_path: Path) -> None:
    model = trained(folder, ranks={})
    model.save_lora(tmp_path)
    tensors, layer = load_file(tmp_path / FILE), model.denoiser.transformer_blocks[0].attn
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    for number, each in enumerate((layer.to_q, layer.to_k, layer.to_v)):
        pair, rows = slice(2 * number, 2 * number + 2), slice(32 * number, 32 * number + 32)
        down, up = (tensors[f"{name}.lora_{x}.weight"] for x in ("down", "up"))
        assert torch.equal(down[pair], each.lora_A.default.weight)
        assert torch.equal(up[rows, pair], each.lora_B.default.weight)


def test_a_dora_is_written_in_diffusers_keys_alone(folder: Path, tmp_path: Path) -> None:
    trained(folder, dora=True).save_lora(tmp_path / "lora")
    files = [path.name for path in (tmp_path / "lora").iterdir()]
    assert files == ["pytorch_lora_weights.safetensors"]


def test_magnitudes_in_kohya_s_names_go_to_their_own_rows(folder: Path, tmp_path: Path) -> None:
    name, rows = "lora_unet_single_blocks_1_linear1", 3 * 32 + 128
    tensors = {
        f"{name}.lora_down.weight": torch.randn(2, 32, generator=chance(0)),
        f"{name}.lora_up.weight": torch.randn(rows, 2, generator=chance(1)),
        f"{name}.alpha": torch.tensor(1.0),
        f"{name}.dora_scale": torch.arange(1.0, rows + 1)[:, None],
    }
    save_file(tensors, tmp_path / "a.safetensors")
    model: Any = backbones.load(str(folder))
    model.load_lora(str(tmp_path / "a.safetensors"))
    block = model.denoiser.single_transformer_blocks[1]
    layers = (block.attn.to_q, block.attn.to_k, block.attn.to_v, block.proj_mlp)
    norms = torch.cat([each.weight.norm(dim=1) for each in layers])
    torch.testing.assert_close(norms, torch.arange(1.0, rows + 1))


MISTAKES = {
    "rows of another model": {"lora_up.weight": torch.ones(95, 2)},
    "rows of a number": {"lora_up.weight": torch.ones(96)},
    "what is no LoRA": {"oft_blocks": torch.ones(2, 2)},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_of_these_layers_is_named(mistake: str, folder: Path, tmp_path: Path) -> None:
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {"lora_down.weight": torch.ones(2, 32), "lora_up.weight": torch.ones(96, 2)}
    tensors |= MISTAKES[mistake]
    file = tmp_path / "a.safetensors"
    save_file({f"{name}.{kind}": each for kind, each in tensors.items()}, file)
    model: Any = backbones.load(str(folder))
    with pytest.raises(ValueError, match=r"\(model\.lora\)") as caught:
        model.load_lora(str(file))
    assert "\n" not in str(caught.value)
