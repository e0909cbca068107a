"""Checkpoints of a whole model in one file, in the names of the original code.

`.safetensors` and `.ckpt` of Stable Diffusion 1.x, 2.x and XL, as A1111, ComfyUI and model sites
pass them on. Such a file says neither how the networks are built nor what words they know: the
first is known here, the second (CLIP's vocabulary) lies in a folder of the user's.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from shortcut_lightning import weights
from shortcut_lightning.backbones import original_configs as configs
from shortcut_lightning.backbones import original_names as names
from shortcut_lightning.backbones.original_kinds import TEXT, UNET, VAE, is_beside, kind_of
from shortcut_lightning.backbones.pipelines import check_tokenizer
from shortcut_lightning.files.reading import read_text
from shortcut_lightning.weights import WeightsError

CLIP = "openai/clip-vit-large-patch14"


class _File:
    """The tensors of a file, which are asked for one by one."""

    def __init__(self, path: Path, key: str) -> None:
        found, self.metadata = weights.read(path, key)
        nested = found.get("state_dict")
        self.tensors = weights.tensors_of(nested if isinstance(nested, dict) else found)
        self.path, self.key = str(path), key
        self.used: set[str] = set()

    def get(self, *spellings: str) -> Tensor | None:
        """The first of the spellings that the file has."""
        for name in spellings:
            if name in self.tensors:
                self.used.add(name)
                return self.tensors[name]
        return None

    def fill(self, network: nn.Module, found: Mapping[str, Tensor | None], part: str) -> None:
        """Puts what was found for each of the network's tensors into it."""
        # Copies: in a mapped file tensors lie anywhere, and products round by where they lie.
        its = next(network.parameters()).dtype
        whole = {name: each.to(its, copy=True) for name, each in found.items() if each is not None}
        weights.fill(network, whole, self.path, part, self.key, assign=True)


def load(
    path: Path, config: str, dtype: torch.dtype, key: str, config_key: str
) -> tuple[bool, dict[str, Any]]:
    """Whether the file is of XL, and the parts of its pipeline, by their names in it.

    Args:
        path: The file.
        config: Folder in diffusers' layout with `tokenizer/`, or with CLIP's vocabulary itself;
            configurations of other parts in it (`unet/`, `scheduler/` ...) are taken before those
            known here. "" looks beside the file, and then for `openai/clip-vit-large-patch14`.
        dtype: Of the denoiser and the text encoders.
        key: The setting that named the file.
        config_key: The setting that names the folder, "" where there is none.

    Raises ValueError that says what the file is instead, or what it or the folder lacks.
    """
    file = _File(path, key)
    kind = kind_of(file.tensors, file.path, key)
    folder = Path(config).expanduser() if config else path.parent
    said = folder if config else None
    parts: dict[str, Any] = {
        "unet": _unet(file, _config(said, "unet") or configs.UNETS[kind], dtype),
        "vae": _autoencoder(file, _config(said, "vae") or configs.autoencoder(kind)),
    }
    for number, prefix in enumerate(TEXT[kind]):
        suffix = "_2" if number else ""
        settings = _config(said, f"text_encoder{suffix}") or configs.text_encoders(kind)[number]
        encoder = _text_encoder(file, prefix, settings, dtype, f"text_encoder{suffix}")
        tokenizer = _tokenizer(folder, suffix, kind, config_key)
        check_tokenizer(tokenizer, encoder, str(folder))
        parts |= {f"text_encoder{suffix}": encoder, f"tokenizer{suffix}": tokenizer}
    strange = sorted(n for n in file.tensors if n not in file.used and not is_beside(n))
    weights.refuse_parts([], strange, file.path, f"Stable Diffusion {kind}", key)
    settings = _config(said, "scheduler")
    if not settings:
        prediction = _prediction(file, kind, parts["unet"])
        zero_snr = "ztsnr" in file.tensors
        name, settings = configs.scheduler(kind, prediction, zero_snr)
        settings = settings | {"_class_name": name}
        if kind == "2.x" and prediction == "v_prediction":  # trained at 768 px
            parts["unet"].register_to_config(sample_size=96)
    parts["scheduler"] = getattr(diffusers, settings["_class_name"]).from_config(settings)
    return kind == "XL", parts


def _config(folder: Path | None, part: str) -> dict[str, Any]:
    """What a folder says of a part; {} where it says nothing."""
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    file = (folder or Path()) / part / name
    if folder is None or not file.is_file():
        return {}
    try:
        return dict(json.loads(read_text(file)))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"'{file}' is no JSON with settings ({error}).") from error


def _unet(file: _File, settings: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    with init_empty_weights(include_buffers=False), weights.one_line():
        network = UNet2DConditionModel.from_config(dict(settings))
    nn.Module.to(network, dtype)  # diffusers' own warns of what it does not keep in float32
    found = {}
    for name in network.state_dict():
        module, _, parameter = name.rpartition(".")
        found[name] = file.get(f"{UNET}{names.unet(network, module)}.{parameter}")
    file.fill(network, found, "the denoiser")
    return network.eval()


def _autoencoder(file: _File, settings: Mapping[str, Any]) -> nn.Module:
    with init_empty_weights(include_buffers=False), weights.one_line():
        network = AutoencoderKL.from_config(dict(settings))
    levels = len(network.config.block_out_channels)
    found = {}
    for name, own in network.state_dict().items():
        module, _, parameter = name.rpartition(".")
        tensor = file.get(f"{VAE}{names.autoencoder(module, levels)}.{parameter}")
        if tensor is not None and tensor.dim() == 4 and own.dim() == 2:
            tensor = tensor[..., 0, 0]  # attention was written as convolutions of one pixel
        found[name] = tensor
    file.fill(network, found, "the autoencoder")
    return network.eval()


def _text_encoder(
    file: _File, prefix: str, settings: Mapping[str, Any], dtype: torch.dtype, part: str
) -> nn.Module:
    projects = part.endswith("_2")
    kind = transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel
    with init_empty_weights(include_buffers=False), weights.one_line():
        network: Any = kind(transformers.CLIPTextConfig(**settings)).to(dtype)
    found = {}
    for name in network.state_dict():
        bare = name.removeprefix("text_model.")
        if prefix.endswith(".transformer."):
            # The second spelling is that of some early fine-tunes.
            found[name] = file.get(f"{prefix}text_model.{bare}", f"{prefix}{bare}")
        else:
            found[name] = _open_clip(file, prefix, bare)
    file.fill(network, found, part)
    eval_network: nn.Module = network.eval()
    return eval_network


def _open_clip(file: _File, prefix: str, name: str) -> Tensor | None:
    """A tensor of a text encoder out of open_clip's, which keeps query, key and value in one."""
    module, _, parameter = name.rpartition(".")
    if name == "embeddings.position_embedding.weight":
        return file.get(f"{prefix}positional_embedding")
    if module == "text_projection":
        projection = file.get(f"{prefix}text_projection")
        return None if projection is None else projection.T.contiguous()
    layer, _, last = module.rpartition(".self_attn.")
    if last in ("q_proj", "k_proj", "v_proj"):
        block = names.open_clip(f"{layer}.layer_norm1").removesuffix(".ln_1")
        together = file.get(f"{prefix}{block}.attn.in_proj_{parameter}")
        return None if together is None else together.chunk(3)["qkv".index(last[0])].clone()
    return file.get(f"{prefix}{names.open_clip(module)}.{parameter}")


def _tokenizer(folder: Path, suffix: str, kind: configs.Kind, key: str) -> Any:
    """CLIP's words. Where one vocabulary is given for all, 2.x and the second encoder of XL fill
    prompts up with "!", as they were trained."""
    own = folder / f"tokenizer{suffix}"
    places = [own, folder / "tokenizer", folder]
    found = next((each for each in places if _has_words(each)), None)
    where = f"as {key}, or put it" if key else "and put it"
    where += " beside the file as tokenizer/"
    try:
        with weights.one_line():
            tokenizer = transformers.CLIPTokenizer.from_pretrained(found or CLIP)
        if found is None and len(tokenizer.get_vocab()) < 1000:  # without files it is an empty one
            raise ValueError(f"{CLIP} is not at hand")
    except (OSError, ValueError) as error:
        raise WeightsError(
            "A single-file checkpoint does not bring the words of its text encoder: give the "
            f"folder of CLIP's tokenizer (vocab.json and merges.txt, or tokenizer.json, as in "
            f"{CLIP} or in tokenizer/ of any Stable Diffusion folder) {where} "
            f"({' '.join(str(error).split())[:60]})."
        ) from error
    if found != own and (suffix or kind == "2.x"):
        tokenizer.pad_token = "!"
    return tokenizer


def _has_words(folder: Path) -> bool:
    files = (folder / "tokenizer.json", folder / "vocab.json")
    return any(file.is_file() for file in files)


def _prediction(file: _File, kind: configs.Kind, unet: Any) -> str:
    """`epsilon` or `v_prediction`: by the file's metadata or marks; 2.x, of which both are common
    and neither is marked, by what the denoiser answers to pure noise.

    There a predicted noise is what was given, and a velocity is the picture, which has nothing to
    do with it.
    """
    told = file.metadata.get("modelspec.prediction_type", "").lower()
    if told in ("v", "v_prediction", "v-prediction") or "v_pred" in file.tensors:
        return "v_prediction"
    if told or kind != "2.x":
        return "epsilon"
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0)).to(unet.dtype)
    text = torch.zeros(1, 77, unet.config.cross_attention_dim, dtype=unet.dtype)
    with torch.no_grad():
        answer = unet(noise, 999, text, return_dict=False)[0]
    alike = torch.cosine_similarity(answer.flatten().float(), noise.flatten().float(), dim=0)
    return "epsilon" if alike > 0.5 else "v_prediction"
