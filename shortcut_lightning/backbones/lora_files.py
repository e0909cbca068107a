"""LoRA files in every key format in use, read into the weights they change.

diffusers, PEFT and kohya's scripts (with A1111, ComfyUI and LyCORIS) name the same pair of matrices
in their own ways. Each tensor of a file finds its layer or is named in an error: a LoRA that is
loaded in part is another LoRA.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from shortcut_lightning import weights
from shortcut_lightning.backbones import lora_kinds, lycoris, original_names
from shortcut_lightning.backbones.lora_kinds import KEY
from shortcut_lightning.files.reading import read_text

if TYPE_CHECKING:
    from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

# How a layer's tensors end, by what they are.
_PAIR = r"(\.lora|\.lora_linear_layer|_lora)"
_ENDINGS = {
    "down": rf"\.lora_down\.weight|\.lora_A(\.\w+)?\.weight|{_PAIR}\.down\.weight",
    "up": rf"\.lora_up\.weight|\.lora_B(\.\w+)?\.weight|{_PAIR}\.up\.weight",
    "middle": r"\.lora_mid\.weight",
    "alpha": r"(\.lora)?\.alpha",
    "magnitude": r"\.dora_scale|\.lora_magnitude_vector(\.\w+)?",
    **{name: rf"\.{name}" for name in lycoris.NAMES},
}


@dataclass
class LowRank:
    """What a file holds for one layer."""

    tensors: dict[str, Tensor] = field(default_factory=dict)  # by the names of `_ENDINGS`
    keys: list[str] = field(default_factory=list)

    def scale(self, default: float | None, root: bool) -> float:
        """alpha / rank, or alpha / sqrt(rank) (arXiv 2312.03732); 1 without an alpha."""
        alpha = float(self.tensors["alpha"]) if "alpha" in self.tensors else default
        rank = lycoris.rank(self.tensors) if self.is_lycoris else len(self.tensors["down"])
        return 1.0 if alpha is None or not rank else alpha / (math.sqrt(rank) if root else rank)

    @property
    def is_lycoris(self) -> bool:
        """Whether it is a LoHa or LoKr."""
        return lycoris.is_one(self.tensors)

    @property
    def reads(self) -> Tensor | None:
        """The matrix next to the layer's input, where one is as wide as that."""
        return self.tensors.get("down", self.tensors.get("hada_w1_b"))

    def fits(self) -> bool:
        """Whether its matrices can be multiplied, and its alpha is one number."""
        if self.is_lycoris:
            try:
                return self.product().dim() > 1
            except (KeyError, RuntimeError):
                return False
        down, up, middle, alpha = map(self.tensors.get, ("down", "up", "middle", "alpha"))
        assert down is not None
        assert up is not None
        if min(down.dim(), up.dim()) < 2 or (alpha is not None and alpha.numel() != 1):
            return False
        outer, inner = math.prod(up.shape[1:]), math.prod(down.shape[1:])
        if middle is None:
            return outer == len(down) and min(outer, inner) > 0
        return tuple(middle.shape[:2]) == (outer, len(down)) and middle.dim() == 4

    def product(self) -> Tensor:
        """The change of the weight before scaling, float32, in the shape of the weight."""
        if self.is_lycoris:
            return lycoris.product(self.tensors)
        down, up = self.tensors["down"].float(), self.tensors["up"].float()
        if "middle" in self.tensors:  # a small convolution between two projections (LoCon's Tucker)
            middle = self.tensors["middle"].float()
            return torch.einsum("ao,oihw,ib->abhw", up.flatten(1), middle, down.flatten(1))
        product = up.flatten(1) @ down.flatten(1)
        return product.view(len(up), *down.shape[1:])


def merge(backbone: "StableDiffusion", path: str) -> None:
    """Adds a LoRA to the weights it is for.

    Raises ValueError, with the weights as they were, when there is none, when it is of a kind or
    for a model that this is not, or when any of its tensors has no place here.
    """
    file = _file(path)
    found, metadata = weights.read(file, KEY)
    tensors = weights.tensors_of(found)
    if not tensors:
        raise ValueError(f"'{file}' holds no tensors; give a LoRA ({KEY}).")
    lora_kinds.refuse_kinds(backbone, tensors, str(file))
    matrices = [(name, each) for name, each in tensors.items() if each.dim() > 1]
    weights.refuse_whole_numbers(matrices, str(file), KEY)
    weights.refuse_not_finite(tensors.items(), str(file), KEY)
    places = _places(backbone)
    if not _all_placed(places, tensors):
        renamed = backbone.lora_in_its_names(tensors)
        tensors = renamed if _all_placed(places, renamed) else tensors
    layers = _layers(tensors, str(file))
    downs = {stem: layer.reads for stem, layer in layers.items() if layer.reads is not None}
    lora_kinds.refuse_other_models(backbone, downs, str(file))
    placed = {stem: place for stem in layers if (place := _place(places, stem))}
    strange = sorted(
        key for stem, layer in layers.items() if stem not in placed for key in layer.keys
    )
    if strange:
        raise ValueError(
            f"{len(strange)} of the {len(tensors)} tensors of the LoRA '{file}' belong to no layer "
            f"of this model: {weights.first(strange)} ({KEY})."
        )
    settings = _settings(file, metadata)
    changed = []
    for stem, place in placed.items():
        scale = settings.of(place.part, place.name, layers[stem])
        changed.append((place.module, _changed(place.module, layers[stem], scale, stem, file)))
    for module, weight in changed:
        module.weight.data.copy_(weight)


def _changed(module: Any, layer: LowRank, scale: float, stem: str, file: Path) -> Tensor:
    """The weight of a layer with its LoRA in it, float32."""
    before, product = module.weight.detach(), layer.product()
    if layer.is_lycoris and product.numel() == before.numel() and len(product) == len(before):
        product = product.view_as(before)  # kernels may lie in rows
    if product.numel() != before.numel() or product.shape[:2] != before.shape[:2]:
        shapes = ["x".join(map(str, each.shape)) for each in (product, before)]
        raise ValueError(
            f"The LoRA '{file}' is for another model: its {stem} changes a weight of {shapes[0]}, "
            f"here it is {shapes[1]} ({KEY})."
        )
    weight = before.float() + product.view_as(before) * scale
    magnitude = layer.tensors.get("magnitude")
    if magnitude is None:
        return weight
    rows = magnitude.float().flatten()
    if len(rows) != len(weight):
        raise ValueError(
            f"The LoRA '{file}' is a DoRA with magnitudes of {tuple(magnitude.shape)} at {stem}; "
            f"one for each of {len(weight)} outputs is known here ({KEY})."
        )
    scales = rows / weight.flatten(1).norm(dim=1)  # arXiv 2402.09353, eq. 5
    return weight * scales.view(-1, *[1] * (weight.dim() - 1))


def _file(path: str) -> Path:
    """The file meant by a file or folder."""
    place = Path(path).expanduser()
    if place.is_file():
        return place
    if not place.is_dir():
        raise ValueError(f"No LoRA at '{path}'; give a .safetensors file or a folder ({KEY}).")
    usual = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
    files = [place / name for name in usual if (place / name).is_file()]
    files = files or sorted(place.glob("*.safetensors"))
    if len(files) == 1 or (files and files[0].name in usual):
        return files[0]
    names = ", ".join(file.name for file in files) or "none"
    raise ValueError(f"'{path}' has to hold one LoRA (.safetensors); found {names} ({KEY}).")


def _layers(tensors: Mapping[str, Tensor], file: str) -> dict[str, LowRank]:
    """The file's tensors by layer."""
    layers: dict[str, LowRank] = {}
    unknown = []
    for key, tensor in tensors.items():
        if (split := _split(key)) is None:
            unknown.append(key)
            continue
        stem, kind = split
        layer = layers.setdefault(stem, LowRank())
        layer.tensors[kind] = tensor
        layer.keys.append(key)
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the {len(tensors)} tensors of '{file}' are of no LoRA format known "
            f"here (diffusers, PEFT, kohya, LyCORIS): {weights.first(sorted(unknown))} ({KEY})."
        )
    for stem, layer in layers.items():
        if not layer.is_lycoris and (lacks := {"down", "up"} - layer.tensors.keys()):
            raise ValueError(
                f"The LoRA '{file}' is incomplete: {stem} lacks its {' and '.join(sorted(lacks))} "
                f"matrix ({KEY})."
            )
        if not layer.fits():
            shapes = " and ".join(str(tuple(each.shape)) for each in layer.tensors.values())
            raise ValueError(
                f"The LoRA '{file}' is damaged: the matrices of {stem} are {shapes} ({KEY})."
            )
    return layers


def _split(key: str) -> tuple[str, str] | None:
    """The name of a tensor's layer, and which of `_ENDINGS` it is; None where it is none."""
    for kind, pattern in _ENDINGS.items():
        if match := re.fullmatch(f"(?P<stem>.+?)({pattern})", key):
            return match["stem"], kind
    return None


class _Place(NamedTuple):
    """A layer."""

    part: str  # of the model
    name: str  # in that part
    module: Any


def _place(places: Mapping[str, _Place], stem: str) -> _Place | None:
    """The layer of a name, with or without what formats put around and into it."""
    stem = stem.removeprefix("base_model.model.")
    tidy = re.sub(r"\.processor\.(to_\w+)$", r".\1", stem)
    tidy = re.sub(r"\.to_out$", ".to_out.0", tidy)
    return places.get(tidy, places.get(stem))


def _all_placed(places: Mapping[str, _Place], tensors: Mapping[str, Tensor]) -> bool:
    split = map(_split, tensors)
    return all(each is not None and _place(places, each[0]) for each in split)


def _places(backbone: "StableDiffusion") -> dict[str, _Place]:
    """Every name that a format gives to a layer -> the layer."""
    return {
        each: _Place(part, name, module)
        for part, network in backbone.networks.items()
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for each in _names(backbone, part, name)
    }


def _names(backbone: "StableDiffusion", part: str, name: str) -> Iterator[str]:
    if part == "unet":
        return _unet_names(backbone, name)
    return _transformer_names(name) if part == "transformer" else _text_names(part, name)


def _unet_names(backbone: "StableDiffusion", name: str) -> Iterator[str]:
    original = original_names.unet(backbone.unet, name)
    yield from (name, f"unet.{name}", f"diffusion_model.{original}")
    yield from (f"lora_unet_{each.replace('.', '_')}" for each in (name, original))


def _transformer_names(name: str) -> Iterator[str]:
    yield from (name, f"transformer.{name}", f"diffusion_model.{name}")
    yield from (f"lora_{part}_{name.replace('.', '_')}" for part in ("unet", "transformer"))


def _text_names(part: str, name: str) -> Iterator[str]:
    bare = name.removeprefix("text_model.")
    projection = bare == "text_projection"
    full = bare if projection else f"text_model.{bare}"
    yield from (f"{part}.{bare}", f"{part}.{full}")
    number = 2 if part.endswith("_2") else 1
    prefixes = ["lora_te2_"] if number == 2 else ["lora_te_", "lora_te1_"]
    yield from (prefix + full.replace(".", "_") for prefix in prefixes)
    if number == 1:  # PEFT's own files do not say which network they are of
        yield from (bare, full)


@dataclass(frozen=True)
class _Settings:
    """How strong the adapters of a file are, where it does not say so beside each layer."""

    values: Mapping[str, Any]

    def of(self, part: str, name: str, layer: LowRank) -> float:
        """The scale of a layer."""

        def value(key: str) -> Any:
            return self.values.get(f"{part}.{key}", self.values.get(key))

        alpha = value("lora_alpha")
        for pattern, its in (value("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", name):
                alpha = its
                break  # the first that fits, as in peft
        return layer.scale(alpha, bool(value("use_rslora")))


def _settings(file: Path, metadata: Mapping[str, str]) -> _Settings:
    """From diffusers' metadata, or from PEFT's configuration beside the file."""
    beside = file.with_name("adapter_config.json")
    told = metadata.get("lora_adapter_metadata", "")
    try:
        if not told and file.stem == "adapter_model" and beside.is_file():
            told = read_text(beside)
        values = json.loads(told or "{}")
        if not isinstance(values, dict):
            raise ValueError("no mapping")
    except ValueError as error:
        raise ValueError(
            f"The settings of the LoRA '{file}' cannot be read as JSON ({error}) ({KEY})."
        ) from error
    kind = str(values.get("peft_type") or "LORA")
    if kind != "LORA":
        raise ValueError(f"'{file}' is PEFT's {kind}; plain LoRA and DoRA are known here ({KEY}).")
    return _Settings(values)
