"""Adapters in every common format, and those that are none: pytest this file."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortcut_lightning import backbones
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def exported(
    small_sd: Path, small_sdxl: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Trained adapters of both families, as the program writes them."""
    folders = {}
    for family, model in (("sd", small_sd), ("xl", small_sdxl)):
        backbone = backbones.load(str(model)).requires_grad_(False)
        backbone.add_lora(unet=True, text_encoder=True, rank=2, alpha=2, dropout=0.0, dora=False)
        torch.manual_seed(0)
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn_like(parameter)
        folders[family] = tmp_path_factory.mktemp(family)
        backbone.save_lora(folders[family])
    return folders


def loaded(model: Path, file: Path) -> Tensors:
    """All weights after the file went in."""
    backbone = backbones.load(str(model))
    backbone.load_lora(str(file))
    return backbone.state_dict()


def same(one: Tensors, two: Tensors) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("family", ["sd", "xl"])
@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "kohya_lora.safetensors"])
def test_weights_are_the_ones_that_stock_diffusers_merges(
    family: str, file: str, exported: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue("small_sd" if family == "sd" else "small_sdxl")
    kind = StableDiffusionPipeline if family == "sd" else StableDiffusionXLPipeline
    stock = kind.from_pretrained(model)
    plain = {name: each.clone() for name, each in stock.unet.state_dict().items()}
    stock.load_lora_weights(exported[family], weight_name=file)
    stock.fuse_lora()
    stock.unload_lora_weights()
    ours = backbones.load(str(model))
    assert isinstance(ours, StableDiffusion)
    ours.load_lora(str(exported[family] / file))
    for name, network in ours.networks.items():
        assert same(network.state_dict(), getattr(stock, name).state_dict()), name
    assert not same(ours.unet.state_dict(), plain)


def renamed(change: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {change(key): each for key, each in tensors.items()}


def peft(key: str) -> str:
    key = key.replace(".lora.", ".lora_linear_layer.")
    key = key.replace("lora_linear_layer.down", "lora_A").replace("lora_linear_layer.up", "lora_B")
    return "base_model.model." + key.removeprefix("unet.").removeprefix("text_encoder.")


FORMATS = {
    "peft": renamed(peft),
    "peft, named": renamed(lambda key: peft(key).replace("lora_A", "lora_A.default")),
    "peft, with the part": renamed(
        lambda key: "base_model.model." + key.replace("lora.down", "lora_A").replace(
            "lora.up", "lora_B"
        )
    ),
    "diffusers of today": renamed(
        lambda key: re.sub(r"lora(_linear_layer)?\.down", "lora_A", key).replace(
            "lora_linear_layer.up", "lora_B"
        )
    ),
    "attention processors": renamed(
        lambda key: re.sub(r"\.(to_[qkv]|to_out)(\.0)?\.lora\.", r".processor.\1_lora.", key)
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_names_gives_the_same_weights(
    form: str, exported: dict[str, Path], small_sd: Path, tmp_path: Path
) -> None:
    given = exported["sd"] / "pytorch_lora_weights.safetensors"
    save_file(FORMATS[form](load_file(given)), tmp_path / "other.safetensors")
    assert same(loaded(small_sd, tmp_path / "other.safetensors"), loaded(small_sd, given))


def test_a_folder_of_peft_brings_its_strength(
    exported: dict[str, Path], small_sd: Path, tmp_path: Path
) -> None:
    given = load_file(exported["sd"] / "pytorch_lora_weights.safetensors")
    unet = {peft(key): each for key, each in given.items() if key.startswith("unet.")}
    save_file(unet, tmp_path / "adapter_model.safetensors")
    alphas = {"to_q": 6, "attn1.*": 4}  # the first that fits counts
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": alphas}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    plain = backbones.load(str(small_sd)).state_dict()
    strong = loaded(small_sd, tmp_path)
    save_file(unet, tmp_path / "plain.safetensors")
    weak = loaded(small_sd, tmp_path / "plain.safetensors")
    for name in ("to_q", "to_k"):
        key = f"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.{name}.weight"
        expected = plain[key] + (3 if name == "to_q" else 2) * (weak[key] - plain[key])
        torch.testing.assert_close(strong[key], expected)


@pytest.mark.parametrize("name", ["down_blocks_0_resnets_0_conv1", "input_blocks_1_0_in_layers_2"])
@pytest.mark.parametrize("tucker", [False, True])
def test_convolutions_of_locon(name: str, tucker: bool, small_sd: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = backbones.load(str(small_sd)).state_dict()
    weight = plain["unet.down_blocks.0.resnets.0.conv1.weight"]
    side = 1 if tucker else 3
    down, up = torch.randn(2, weight.shape[1], side, side), torch.randn(len(weight), 2, 1, 1)
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    middle = torch.randn(2, 2, 3, 3)
    if tucker:
        tensors["lora_mid.weight"] = middle
    save_file({f"lora_unet_{name}.{key}": each for key, each in tensors.items()}, tmp_path / "a")
    changed = loaded(small_sd, tmp_path / "a")["unet.down_blocks.0.resnets.0.conv1.weight"]
    picture = torch.randn(1, weight.shape[1], 8, 8)
    inner = torch.conv2d(picture, down, padding=0 if tucker else 1)
    if tucker:
        inner = torch.conv2d(inner, middle, padding=1)
    expected = torch.conv2d(picture, weight, padding=1) + torch.conv2d(inner, up) / 2
    torch.testing.assert_close(
        torch.conv2d(picture, changed, padding=1), expected, atol=1e-3, rtol=0
    )


def first_layer(tensors: Tensors, ending: str, value: Tensor | None = None) -> Tensors:
    """The file with the tensors of its first layer under another ending."""
    stem = sorted(tensors)[0].partition(".")[0]
    rest = {key: each for key, each in tensors.items() if not key.startswith(stem + ".")}
    return rest | {f"{stem}.{ending}": torch.ones(2, 2) if value is None else value}


def first_layer_and(tensors: Tensors, ending: str) -> Tensors:
    """The file with a tensor more at its first layer."""
    stem = sorted(tensors)[0].partition(".")[0]
    return tensors | {f"{stem}.{ending}": torch.ones(1)}


def misspelt(tensors: Tensors) -> Tensors:
    return {key.replace("down_blocks_0", "down_blokcs_0"): v for key, v in tensors.items()}


def wider(tensors: Tensors) -> Tensors:
    return {
        key: torch.ones(2, 2048) if re.search(r"attn2_to_[kv].lora_down", key) else each
        for key, each in tensors.items()
    }


def reshaped(ending: str, *shape: int) -> Callable[[Tensors], Tensors]:
    """The file with a tensor of its first layer in another shape."""

    def change(tensors: Tensors) -> Tensors:
        key = next(key for key in sorted(tensors) if key.endswith(ending))
        return tensors | {key: torch.ones(shape)}

    return change


MISTAKES: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "misspelt": (misspelt, r"24 of the 120 .* no layer of this model: lora_unet_down_blokcs_0_att"),
    "LoKr": (lambda t: first_layer(t, "lokr_w1"), r"is damaged: the matrices of lora_"),
    "LoHa": (lambda t: first_layer(t, "hada_w1_a"), r"is damaged: the matrices of lora_"),
    "OFT": (lambda t: first_layer(t, "oft_blocks"), r"is OFT "),
    "whole": (lambda t: first_layer(t, "diff"), r"is LyCORIS of whole weight differences"),
    "FLUX": (
        renamed(lambda key: key.replace("down_blocks_0", "double_blocks_0")),
        r"is a LoRA for FLUX, at ",
    ),
    "another key": (lambda t: t | {"logit": torch.ones(1)}, r"no LoRA format known .*: logit "),
    "a bias": (
        lambda t: first_layer(t, "lora_B.bias"),
        r"no LoRA format known .*lora_B.bias \(model.lora\)",
    ),
    "half a pair": (lambda t: first_layer(t, "lora_up.weight"), r"incomplete: lora.* lacks its do"),
    "NaN": (
        lambda t: {key: each * float("nan") for key, each in t.items()},
        r"no numbers \(NaN or infinite\) in lora_te_",
    ),
    "XL's text": (
        wider,
        r"for Stable Diffusion XL \(it reads text 2048 wide\); this .* is 32 wide",
    ),
    "a dimension more": (reshaped("lora_up.weight", 32, 2, 2), r"is damaged: .*\(32, 2, 2\)"),
    "a flat matrix": (reshaped("lora_down.weight", 64), r"is damaged: .*\(64,\)"),
    "another rank": (reshaped("lora_down.weight", 3, 32), r"is damaged: .*\(3, 32\)"),
    "several alphas": (reshaped("alpha", 3), r"is damaged: .*\(3,\)"),
    "a middle that fits nothing": (
        lambda t: reshaped("lora_mid.weight", 5, 2, 3, 3)(first_layer_and(t, "lora_mid.weight")),
        r"is damaged: .*\(5, 2, 3, 3\)",
    ),
    "whole numbers": (
        lambda t: {key: each.to(torch.int8) for key, each in t.items()},
        r"has weights of int8 in lora_\w+",
    ),
    "nothing": (lambda t: {}, r"holds no tensors"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_loaded_whole_is_named_and_changes_nothing(
    name: str, exported: dict[str, Path], small_sd: Path, tmp_path: Path
) -> None:
    change, message = MISTAKES[name]
    save_file(change(load_file(exported["sd"] / "kohya_lora.safetensors")), tmp_path / "a")
    backbone = backbones.load(str(small_sd))
    before = {name: each.clone() for name, each in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        backbone.load_lora(str(tmp_path / "a"))
    assert "\n" not in str(caught.value)
    assert same(backbone.state_dict(), before)


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        ("sd", "xl", r"for another model \(it reads text 80 wide\); this model's text is 32 wide"),
        ("xl", "sd", r"it reads text 32 wide\); this model is Stable Diffusion XL \(80 wide\)"),
    ],
)
def test_the_other_family_is_named(
    own: str,
    other: str,
    message: str,
    exported: dict[str, Path],
    request: pytest.FixtureRequest,
) -> None:
    model = request.getfixturevalue("small_sd" if own == "sd" else "small_sdxl")
    for file in ("pytorch_lora_weights.safetensors", "kohya_lora.safetensors"):
        with pytest.raises(ValueError, match=message):
            loaded(model, exported[other] / file)


def test_text_encoders_alone_tell_the_family(
    exported: dict[str, Path], small_sd: Path, small_sdxl: Path, tmp_path: Path
) -> None:
    for family, model, message in (
        ("xl", small_sd, "for Stable Diffusion XL"),
        ("sd", small_sdxl, r"for Stable Diffusion 1.x or 2.x"),
    ):
        tensors = load_file(exported[family] / "kohya_lora.safetensors")
        text = {key: each for key, each in tensors.items() if key.startswith("lora_te")}
        save_file(text, tmp_path / "a")
        with pytest.raises(ValueError, match=message):
            loaded(model, tmp_path / "a")


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path(self.path),)


def test_nothing_is_unpickled_and_broken_files_are_named(small_sd: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": Touch(tmp_path / "PWNED")}, tmp_path / "pickle.pt")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "text.safetensors").write_text("no weights at all, just some words")
    save_file({"a": torch.zeros(64)}, tmp_path / "whole")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole").read_bytes()[:200])
    for name, message in {
        "pickle.pt": "more than weights",
        "empty.safetensors": "is empty",
        "text.safetensors": "no file of weights",
        "cut.safetensors": "truncated",
        "missing.safetensors": "No LoRA at",
        "": "has to hold one LoRA",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            loaded(small_sd, tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "(model.lora)" in str(caught.value)
    assert not (tmp_path / "PWNED").exists()
