"""Text-to-image models behind one interface; the only files that import diffusers' models."""

from pathlib import Path
from typing import Any

import torch

from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior
from shortcut_lightning.weights import WeightsError

__all__ = ["Backbone", "Conditioning", "Posterior", "load"]

_KNOWN = "Stable Diffusion 1.x, 2.x, XL and 3, FLUX.1, FLUX.2 klein, Z-Image and Qwen-Image"


def load(
    pretrained_model_name_or_path: str = "pocket",
    revision: str = "",
    variant: str = "",
    dtype: torch.dtype = torch.float32,
    key: str = "model.pretrained_model_name_or_path",
    single_file_config: str = "",
    nf4: bool = False,
) -> Backbone:
    """Loads `pocket`, a local diffusers folder, a hub id, or a checkpoint in a single file.

    Args:
        pretrained_model_name_or_path: Its name.
        revision: Branch, tag or commit on the hub.
        variant: Weight file variant.
        dtype: Of the denoiser and the text encoders; an autoencoder is float32 always.
        key: Where the name was given, for messages.
        single_file_config: For a single file, the folder of its tokenizer (`single_file.load`).
        nf4: Whether the denoiser's linear layers are stored in 4 bits (bitsandbytes).

    Raises ValueError when the name leads nowhere or the folder holds something else.
    """
    from shortcut_lightning.pocket import BUILT_IN

    name = pretrained_model_name_or_path
    path = str(BUILT_IN.get(name, name))
    wanted = (
        "expected a diffusers folder, a checkpoint of Stable Diffusion in one file, a hub id that "
        "can be reached, or 'pocket' or 'pocket-flow', the built-in ones"
    )
    if not Path(path).exists() and (
        path.startswith(("/", ".", "~"))
        or path.count("/") > 1
        or path.endswith((".safetensors", ".ckpt"))
    ):
        raise ValueError(f"{key}: no folder or file '{name}'; {wanted}.")
    if Path(path).is_dir() and not (Path(path) / "model_index.json").is_file():
        raise ValueError(f"{key}: '{name}' is a folder without model_index.json; {wanted}.")
    if Path(path).is_file() and (variant or revision):
        given = "variant" if variant else "revision"
        raise ValueError(f"{given} is for folders and hub ids; '{name}' is one file.")
    if Path(path).is_file():
        if nf4:
            raise ValueError(f"{key}: '{name}' is one file; 4 bits are for diffusers' folders.")
        return _from_file(Path(path), dtype, key, single_file_config)
    if single_file_config:
        raise ValueError(f"single_file_config is for checkpoints in one file; '{name}' is none.")
    try:
        kind = _pipeline_class(path, revision or None)
        known = families()
        # Longest first: relatives of a pipeline for text alone begin with its name.
        starts = sorted((n.removesuffix("Pipeline") for n in known), key=len, reverse=True)
        start = next((each for each in starts if kind.startswith(each)), "")
        family = known.get(kind) or (
            known[f"{start}Pipeline"] if start.startswith("StableDiffusion") else None
        )
        if family is None:
            raise ValueError(f"it is a {kind}; {_KNOWN} are known.")
        where = path, revision or None, variant or None
        return family.from_pretrained(*where, dtype, key, nf4)
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{key}: cannot load '{name}' ({reason}); {wanted}.") from error


def families() -> dict[str, Any]:
    """Each family by the name of its pipeline class."""
    # slow imports
    from shortcut_lightning.backbones.flux import Flux
    from shortcut_lightning.backbones.flux2_klein import Flux2Klein
    from shortcut_lightning.backbones.qwen_image import QwenImage
    from shortcut_lightning.backbones.sdxl import StableDiffusionXL
    from shortcut_lightning.backbones.stable_diffusion import StableDiffusion
    from shortcut_lightning.backbones.stable_diffusion3 import StableDiffusion3
    from shortcut_lightning.backbones.z_image import ZImage

    flows = (Flux, Flux2Klein, QwenImage, StableDiffusion3, ZImage)
    each = (*flows, StableDiffusionXL, StableDiffusion)
    return {family.pipeline_class.__name__: family for family in each}


def _from_file(path: Path, dtype: torch.dtype, key: str, config: str) -> Backbone:
    # slow imports
    from shortcut_lightning.backbones import single_file
    from shortcut_lightning.backbones.sdxl import StableDiffusionXL
    from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

    # Where the model is all that can be named, its tokenizer lies beside it.
    parent, _, name = key.rpartition(".")
    has_key = name == "pretrained_model_name_or_path"
    config_key = f"{parent}.single_file_config" if has_key else ""
    try:
        is_xl, parts = single_file.load(path, config, dtype, key, config_key)
        family = StableDiffusionXL if is_xl else StableDiffusion
        return family(family.pipeline_class(**parts, **family.pipeline_options))
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: cannot load '{path}' ({error}).") from error


def _pipeline_class(path: str, revision: str | None) -> str:
    """The name of the diffusers pipeline that a folder or hub id was written by."""
    from huggingface_hub import hf_hub_download

    from shortcut_lightning.backbones import pipelines

    name = "model_index.json"
    local = Path(path) / name
    index = local if local.is_file() else Path(hf_hub_download(path, name, revision=revision))
    return str(pipelines.index(index)["_class_name"])
