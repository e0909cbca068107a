"""Text-to-image models behind one interface; the only files that import diffusers' models."""

from pathlib import Path

from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior

__all__ = ["Backbone", "Conditioning", "Posterior", "load"]


def load(
    pretrained_model_name_or_path: str = "pocket", revision: str = "", variant: str = ""
) -> Backbone:
    """Loads `pocket`, a local diffusers folder, or a hub id, in fp32.

    Raises ValueError when the name leads nowhere or the folder holds something else.
    """
    from shortcut_lightning.backbones.stable_diffusion import StableDiffusion  # slow import
    from shortcut_lightning.pocket import WEIGHTS

    name = pretrained_model_name_or_path
    path = str(WEIGHTS) if name == "pocket" else name
    if Path(path).is_dir() and not (Path(path) / "model_index.json").is_file():
        raise ValueError(
            f"'{name}' is a folder without model_index.json; expected a diffusers folder, "
            "a hub id or 'pocket' (model.pretrained_model_name_or_path)."
        )
    try:
        return StableDiffusion.from_pretrained(path, revision or None, variant or None)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"Cannot load the model '{name}': {reason} Give a diffusers folder, a hub id that can "
            "be reached, or 'pocket', which is built in (model.pretrained_model_name_or_path)."
        ) from error
