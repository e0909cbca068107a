"""Text-to-image models behind one interface; the only files that import diffusers' models."""

from pathlib import Path

import torch

from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior
from shortcut_lightning.weights import WeightsError

__all__ = ["Backbone", "Conditioning", "Posterior", "load"]


def load(
    pretrained_model_name_or_path: str = "pocket",
    revision: str = "",
    variant: str = "",
    dtype: torch.dtype = torch.float32,
    key: str = "model.pretrained_model_name_or_path",
) -> Backbone:
    """Loads `pocket`, a local diffusers folder, or a hub id.

    Args:
        pretrained_model_name_or_path: Its name.
        revision: Branch, tag or commit on the hub.
        variant: Weight file variant.
        dtype: Of the denoiser and the text encoders; an autoencoder is float32 always.
        key: Where the name was given, for messages.

    Raises ValueError when the name leads nowhere or the folder holds something else.
    """
    # slow imports
    from shortcut_lightning.backbones.sdxl import StableDiffusionXL
    from shortcut_lightning.backbones.stable_diffusion import StableDiffusion
    from shortcut_lightning.pocket import WEIGHTS

    name = pretrained_model_name_or_path
    path = str(WEIGHTS) if name == "pocket" else name
    wanted = (
        "expected a diffusers folder, a hub id that can be reached, or 'pocket', the built-in one"
    )
    if not Path(path).exists() and (path.startswith(("/", ".", "~")) or path.count("/") > 1):
        raise ValueError(f"{key}: no folder '{name}'; {wanted}.")
    if Path(path).is_dir() and not (Path(path) / "model_index.json").is_file():
        raise ValueError(f"{key}: '{name}' is a folder without model_index.json; {wanted}.")
    try:
        kind = _pipeline_class(path, revision or None)
        if kind.startswith("StableDiffusion3") or not kind.startswith("StableDiffusion"):
            raise ValueError(f"it is a {kind}; Stable Diffusion 1.x, 2.x and XL are known.")
        family = StableDiffusionXL if kind.startswith("StableDiffusionXL") else StableDiffusion
        return family.from_pretrained(path, revision or None, variant or None, dtype, key)
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{key}: cannot load '{name}' ({reason}); {wanted}.") from error


def _pipeline_class(path: str, revision: str | None) -> str:
    """The name of the diffusers pipeline that a folder or hub id was written by."""
    from huggingface_hub import hf_hub_download

    from shortcut_lightning.backbones import pipelines

    name = "model_index.json"
    local = Path(path) / name
    index = local if local.is_file() else Path(hf_hub_download(path, name, revision=revision))
    return str(pipelines.index(index)["_class_name"])
