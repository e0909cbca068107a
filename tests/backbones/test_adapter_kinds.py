"""LoRA on convolutions, LoHa, LoKr, ranks by pattern, and their files read by others:
python -m pytest tests/backbones/test_adapter_kinds.py"""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from flow_models import write_small_flux
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones import lora
from shortcut_lightning.backbones.base import is_adapter
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import AdapterShape

RANKS = {r"up_blocks\..*": 3, r"down_blocks\.0\.resnets\.0\.conv1": 1}
BLOCK_RANK = {r"up_blocks\..*": 8}
OVERLAPPING = {r"up_blocks\..*": 8, r".*to_q": 4}  # the first that fits counts
FORMS: dict[str, dict[str, Any]] = {
    "lora on convolutions": {"kind": "lora", "convolutions": True},
    "ranks": {"kind": "lora", "convolutions": True, "ranks": RANKS, "alphas": RANKS},
    "ranks on attention": {"kind": "lora", "ranks": BLOCK_RANK, "alphas": BLOCK_RANK},
    "overlapping ranks": {"kind": "lora", "ranks": OVERLAPPING, "alphas": OVERLAPPING},
    "loha": {"kind": "loha"},
    "loha on convolutions": {"kind": "loha", "convolutions": True, "ranks": RANKS},
    "lokr": {"kind": "lokr"},
    "lokr on convolutions": {"kind": "lokr", "convolutions": True, "ranks": RANKS},
    "lokr of full rank": {"kind": "lokr", "convolutions": True, "rank": 64},
}
PLAIN = [name for name, form in FORMS.items() if form["kind"] == "lora"]


def trained(folder: Path, text: bool = True, **form: Any) -> Any:
    """A model whose adapters hold something, and it alone would learn."""
    backbone = backbones.load(str(folder)).requires_grad_(False)
    settings = {"rank": 2, "alpha": 3, "dropout": 0.0, "dora": False} | form
    backbone.add_lora(unet=True, text_encoder=text, **settings)
    torch.manual_seed(0)
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == is_adapter(name)
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return backbone.eval()


def picture(backbone: Any) -> Tensor:
    return backbone.sample(["a photo of dog"], seeds=[1], num_inference_steps=3)


def as_comfy_reads(file: Path, layers: dict[str, Tensor]) -> dict[str, Tensor]:
    """The changes of weights by the rules of ComfyUI's loader, of layers by their kohya names."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(file).items():
        stem, _, name = key.partition(".")
        found.setdefault(stem, {})[name] = tensor
    changes = {}
    for stem, t in found.items():
        alpha = t["alpha"].item() if "alpha" in t else None
        if "hada_w1_a" in t:
            both = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
            dim = len(t["hada_w1_b"])
        else:
            dim, pair = 0, []
            for side in ("lokr_w1", "lokr_w2"):
                dim = dim if side in t else len(t[f"{side}_b"])
                pair.append(t[side] if side in t else t[f"{side}_a"] @ t[f"{side}_b"])
            one, two = pair
            one = one[:, :, None, None] if two.dim() == 4 else one
            both = torch.kron(one.contiguous(), two.contiguous())
        scale = 1.0 if alpha is None or not dim else alpha / dim
        changes[stem] = (scale * both).reshape(layers[stem].shape)
    return changes


@pytest.mark.parametrize("form", [name for name in FORMS if name not in PLAIN])
def test_lycoris_files_mean_the_same_to_others(form: str, small_sd: Path, tmp_path: Path) -> None:
    backbone = trained(small_sd, **FORMS[form])
    expected = picture(backbone)
    backbone.save_lora(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kohya_lora.safetensors"]
    plain: Any = backbones.load(str(small_sd))
    before = picture(plain)
    layers = {
        plain.kohya_name(part, name): module.weight
        for part, network in plain.networks.items()
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    changes = as_comfy_reads(tmp_path / "kohya_lora.safetensors", layers)
    adapted = lora.adapted_layers(backbone)
    assert len(changes) == len(adapted)
    assert ("on convolutions" in form or "full" in form) == any("conv1" in name for name in adapted)
    for stem, change in changes.items():
        layers[stem].data += change
    torch.testing.assert_close(picture(plain), expected, atol=1e-3, rtol=0)
    assert (before - expected).abs().max() > 0.005

    again = backbones.load(str(small_sd))
    again.load_lora(str(tmp_path))
    torch.testing.assert_close(picture(again), expected, atol=1e-3, rtol=0)
    backbone.save(tmp_path / "model")
    merged = backbones.load(str(tmp_path / "model"))
    torch.testing.assert_close(picture(merged), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", [name for name in FORMS if name not in PLAIN])
def test_the_library_of_lycoris_reads_them(form: str, small_sd: Path, tmp_path: Path) -> None:
    lycoris = pytest.importorskip("lycoris", reason="LyCORIS' own package, no extra of ours")
    backbone = trained(small_sd, **FORMS[form])
    backbone.save_lora(tmp_path)
    state = load_file(tmp_path / "kohya_lora.safetensors")
    plain: Any = backbones.load(str(small_sd)).requires_grad_(False)
    for part, prefix in {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}.items():
        own = {k.replace(prefix, "lycoris_", 1): state[k] for k in state if k.startswith(prefix)}
        network, _ = lycoris.create_lycoris_from_weights(1.0, "", plain.networks[part], own)
        network.merge_to(1.0)
    torch.testing.assert_close(picture(plain), picture(backbone), atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", PLAIN)
@pytest.mark.parametrize("family", ["small_sd", "small_sdxl"])
def test_stock_diffusers_reads_convolutions_and_ranks(
    form: str, family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(family)
    settings = FORMS[form]
    backbone = trained(folder, text=family == "small_sd", **settings)
    expected = picture(backbone)
    backbone.save_lora(tmp_path)
    kohya = load_file(tmp_path / "kohya_lora.safetensors")
    assert {each.item() for key, each in kohya.items() if key.endswith(".alpha")} == {3}
    for file in ("pytorch_lora_weights.safetensors", "kohya_lora.safetensors"):
        kind: Any = StableDiffusionPipeline if family == "small_sd" else StableDiffusionXLPipeline
        options = {"safety_checker": None} if family == "small_sd" else {"add_watermarker": False}
        stock = kind.from_pretrained(folder, **options)
        stock.load_lora_weights(tmp_path, weight_name=file)
        drawn = stock(
            "a photo of dog",
            latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
            num_inference_steps=3,
            guidance_scale=7.5,
            output_type="pt",
        ).images
        torch.testing.assert_close(drawn, expected, atol=1e-3, rtol=0, msg=lambda m, f=file: f + m)
        again = backbones.load(str(folder))
        again.load_lora(str(tmp_path / file))
        torch.testing.assert_close(picture(again), expected, atol=1e-3, rtol=0)


BLOCK = r"transformer_blocks\.1\..*"


@pytest.mark.parametrize("told", [{"alpha_pattern": {BLOCK: 6}}, {"use_rslora": True}, {}])
def test_a_flow_reads_ranks_by_pattern_at_their_strength(
    told: dict[str, Any], small_sd3: Path, tmp_path: Path
) -> None:
    """As the file tells it, and where it tells nothing, with a scale of 1 in every layer."""
    backbone: Any = backbones.load(str(small_sd3)).requires_grad_(False)
    settings = told or {"alpha_pattern": {BLOCK: 8}}
    config = LoraConfig(r=2, lora_alpha=2, rank_pattern={BLOCK: 8}, **lora.JOINT | settings)
    lora.insert(backbone.denoiser, config)
    for name, parameter in backbone.denoiser.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    lora.save_diffusers(backbone, tmp_path)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    if not told:
        save_file(load_file(file), file)
    lora.merge(backbone.denoiser)
    again: Any = backbones.load(str(small_sd3))
    again.load_lora(str(file))
    torch.testing.assert_close(again.denoiser.state_dict(), backbone.denoiser.state_dict())


def test_alphas_among_the_tensors_of_a_flux_file_count(tmp_path: Path) -> None:
    model = write_small_flux(tmp_path / "model")
    backbone: Any = backbones.load(str(model)).requires_grad_(False)
    lora.insert(backbone.denoiser, LoraConfig(r=4, lora_alpha=1, **lora.JOINT))
    for name, parameter in backbone.denoiser.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    lora.save_diffusers(backbone, tmp_path)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    tensors = load_file(file)
    layers = {name.removesuffix(".lora_A.weight") for name in tensors if ".lora_A." in name}
    save_file(tensors | {f"{layer}.alpha": torch.tensor(1.0) for layer in layers}, file)
    lora.merge(backbone.denoiser)
    again: Any = backbones.load(str(model))
    again.load_lora(str(file))
    torch.testing.assert_close(again.denoiser.state_dict(), backbone.denoiser.state_dict())


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_a_pattern_sets_the_rank_of_its_layers(kind: str, small_sd: Path) -> None:
    pattern = {r"mid_block\..*": 5}
    module = DreamBooth(
        str(small_sd),
        method=kind,
        rank=2,
        adapter=AdapterShape(rank_pattern=pattern, convolutions=True),
    )
    ranks, scales = {}, set()
    for name, layer in lora._layers(module.backbone.denoiser):
        ranks[name] = layer.r["default"]
        scales.add(layer.scaling["default"])
    assert {rank for name, rank in ranks.items() if name.startswith("mid_block")} == {5}
    assert {rank for name, rank in ranks.items() if not name.startswith("mid_block")} == {2}
    assert scales == {1.0}
    assert any("conv1" in name for name in ranks)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (
            "small_sd",
            {"adapter": AdapterShape(rank_pattern={"upblocks": 2})},
            "'upblocks' fits no layer with an adapter",
        ),
        ("small_sd", {"adapter": AdapterShape(rank_pattern={"(": 2})}, r"'\(' is no pattern"),
        (
            "small_sd",
            {"method": "loha", "adapter": AdapterShape(dropout=0.1)},
            "which model.method 'loha' has not",
        ),
        (
            "small_sd",
            {"method": "lokr", "adapter": AdapterShape(dora=True)},
            "model.adapter.dora decomposes a LoRA",
        ),
        (
            "small_sd",
            {
                "adapter": AdapterShape(convolutions=True),
                "train_unet": False,
                "train_text_encoder": True,
            },
            "adapts the convolutions of a U-Net that learns",
        ),
        ("small_sd3", {"adapter": AdapterShape(convolutions=True)}, "this model has none"),
        ("small_sd3", {"method": "lokr"}, "model.method is 'lokr'.* allowed: full, lora"),
    ],
)
def test_mistakes_are_named(
    family: str, options: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(family)
    with pytest.raises(ValueError, match=message):
        DreamBooth(str(folder), **{"method": "lora", **options})


def test_a_file_of_another_width_is_named(small_sd: Path, tmp_path: Path) -> None:
    trained(small_sd, kind="lokr").save_lora(tmp_path)
    file = tmp_path / "kohya_lora.safetensors"
    state = load_file(file)
    key = next(key for key in sorted(state) if key.endswith("lokr_w1"))
    save_file(state | {key: torch.ones(3, 3)}, file)
    with pytest.raises(ValueError, match="is for another model: its lora_"):
        backbones.load(str(small_sd)).load_lora(str(file))
