"""Adapters on the networks, by peft alone, and their files in the two key formats in use:
diffusers' and kohya's (A1111, ComfyUI).

diffusers and transformers have adapter methods of their own around peft, each with a range of its
versions; none of them is called here.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save, save_file
from torch import Tensor, nn

from shortcut_lightning.backbones import lycoris

if TYPE_CHECKING:
    from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

UNET: dict[str, Any] = {
    "init_lora_weights": "gaussian",
    "target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
}
JOINT: dict[str, Any] = {  # attention of pictures and text together
    "init_lora_weights": "gaussian",
    "target_modules": [
        *UNET["target_modules"],
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    ],
}
TEXT_ENCODER: dict[str, Any] = {
    "init_lora_weights": "gaussian",
    "target_modules": ["q_proj", "k_proj", "v_proj", "out_proj"],
}
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
KOHYA_NAMES = {
    "lora_A": "lora_down.weight",
    "lora_B": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
}
_TENSORS = "|".join(("lora_[^.]+", *lycoris.NAMES))


def adapted(backbone: "StableDiffusion") -> dict[str, nn.Module]:
    """The parts that carry an adapter, by name."""
    parts = backbone.networks
    return {name: part for name, part in parts.items() if getattr(part, "peft_config", None)}


def adapted_layers(backbone: "StableDiffusion") -> list[str]:
    """The names of the layers with an adapter, each within its part."""
    return [name for part in adapted(backbone).values() for name, _ in _layers(part)]


def is_lora(backbone: "StableDiffusion") -> bool:
    """Whether the adapters are LoRA's, and not of one of LyCORIS' kinds."""
    return all(isinstance(config, LoraConfig) for config in _configs(backbone))


def is_dora(backbone: "StableDiffusion") -> bool:
    """Whether any of the adapters, all of them LoRA's, is decomposed by weight."""
    return any(config.use_dora for config in _configs(backbone))


def _configs(backbone: "StableDiffusion") -> list[Any]:
    return [part.peft_config["default"] for part in adapted(backbone).values()]  # type: ignore[index]


def insert(network: nn.Module, config: PeftConfig) -> None:
    """Puts an adapter into a network, which holds its configuration as `peft_config`.

    Raises ValueError when there is one already.
    """
    if getattr(network, "peft_config", None):
        raise ValueError(f"{type(network).__name__} has an adapter already.")
    inject_adapter_in_model(config, network)


def switch(network: nn.Module, on: bool) -> None:
    """Lets the adapters of a network act and learn, or neither."""
    for _, layer in _layers(network):
        layer.enable_adapters(on)


def merge(network: nn.Module) -> None:
    """Adds the adapters to the weights they stand beside and takes them off."""
    for _, layer in _layers(network):
        layer.merge()
    take_off(network)


def take_off(network: nn.Module) -> None:
    """Leaves the layers that adapters stand beside, as they are; nothing where there are none."""
    for name, layer in _layers(network):
        network.set_submodule(name, layer.get_base_layer())
    if hasattr(network, "peft_config"):
        del network.peft_config


def _layers(network: nn.Module) -> list[tuple[str, Any]]:
    """The layers that have an adapter, by name."""
    return [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]


def save_diffusers(backbone: "StableDiffusion", folder: Path, scaled: bool = False) -> None:
    """Writes `pytorch_lora_weights.safetensors`, which `load_lora_weights` reads.

    Its keys have no place for alpha, which diffusers reads from the file's metadata and others do
    not (ComfyUI). Where the file is `scaled`, it is in the matrices, and the alpha is the rank.

    Modules of text encoders are named as in transformers 4, with `text_model.`: transformers 5 has
    dropped it from one of the classes, but older readers look for it, and today's take both.
    """
    layers: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for name, part in adapted(backbone).items():
        tensors = get_peft_model_state_dict(part)
        if scaled:
            tensors = {key: _scaled(part, key, each) for key, each in tensors.items()}
        if name != "transformer":  # whose files are written in peft's keys everywhere
            renamed = convert_state_dict_to_diffusers(tensors)
            # Its names are of attention alone; a file of two kinds of keys is read in part.
            mixed = any(".lora_A." in key for key in renamed)
            tensors = tensors if mixed else renamed
        prefix = "text_model." if name.startswith("text_encoder") else ""
        for key, tensor in tensors.items():
            path = f"{name}.{prefix}{key.removeprefix(prefix)}"
            layers[path] = tensor.detach().cpu().contiguous()
        for key, value in _told(part, scaled).items():
            settings[f"{name}.{key}"] = sorted(value) if isinstance(value, set) else value
    told = json.dumps(settings, indent=2, sort_keys=True)
    file = _steady(save(layers, {"format": "pt", "lora_adapter_metadata": told}))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pytorch_lora_weights.safetensors").write_bytes(file)


def _scaled(part: nn.Module, key: str, tensor: Tensor) -> Tensor:
    """A tensor of an adapter, one of the two matrices of a layer with its scale in it."""
    layer, is_up, _ = key.partition(".lora_B.")
    return tensor * cast(Any, part.get_submodule(layer)).scaling["default"] if is_up else tensor


def _told(part: nn.Module, scaled: bool) -> dict[str, Any]:
    """peft's settings of a part's adapter, their patterns written out by layer: of several that fit
    one layer the first counts, and JSON that is sorted by name has another first."""
    config: Any = part.peft_config["default"]  # type: ignore[index]
    ranks, alphas = {}, {}
    for name, layer in _layers(part):
        key = re.escape(name.removeprefix("text_model."))  # fits with and without it
        if layer.r["default"] != config.r:
            ranks[key] = layer.r["default"]
        if layer.lora_alpha["default"] != config.lora_alpha:
            alphas[key] = layer.lora_alpha["default"]
    strength = {"alpha_pattern": alphas}
    if scaled:
        strength = {"lora_alpha": config.r, "alpha_pattern": ranks}
    return config.to_dict() | {"rank_pattern": ranks, **strength}


def _steady(file: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names: safetensors itself shuffles
    them, and the same adapter would be another file each time."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items()))} | header
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + file[start:]


def save_kohya(backbone: "StableDiffusion", path: Path) -> None:
    """Writes one file in the keys of kohya's sd-scripts.

    A module's path is joined by underscores behind the part's prefix; a scalar `alpha`, the same in
    all of a part, stands beside each pair of matrices. Written by hand: diffusers' converter infers
    one type for a file that holds several parts, and misnames the text encoder of SD 1.x.
    """
    tensors: dict[str, Tensor] = {}
    for name, part in adapted(backbone).items():
        config: Any = part.peft_config["default"]  # type: ignore[index]
        layers = _by_layer(part)
        for module, own in layers.items():
            layer: Any = part.get_submodule(module)
            if lycoris.is_one(own):
                layers[module] = lycoris.written(own, layer.scaling["default"])
            else:
                layers[module] = _at_alpha(config.lora_alpha, own, layer)
        for stem, own in backbone.kohya_layers(name, layers).items():
            tensors |= {f"{stem}.{kind}": value for kind, value in own.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def _by_layer(part: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The tensors of a part's adapter by layer and by kohya's names."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in get_peft_model_state_dict(part).items():
        match = re.fullmatch(rf"(.+)\.({_TENSORS})(?:\.weight)?", key)
        assert match is not None, key
        value = tensor.detach().cpu().contiguous()
        kind = KOHYA_NAMES.get(match[2], match[2])
        if kind == "dora_scale":  # with the axes of the weight, which readers multiply by it
            weight: Any = part.get_submodule(match[1]).weight
            value = value.view(-1, *[1] * (weight.dim() - 1))
        layers.setdefault(match[1], {})[kind] = value
    return layers


def _at_alpha(alpha: int, tensors: dict[str, Tensor], layer: Any) -> dict[str, Tensor]:
    """A layer's tensors with this alpha, and what its own differs by in a matrix: where alphas in a
    file differ, diffusers takes the commonest for every layer."""
    up = tensors["lora_up.weight"] * (layer.lora_alpha["default"] / alpha)
    return {**tensors, "lora_up.weight": up, "alpha": torch.tensor(float(alpha))}
