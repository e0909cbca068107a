"""Pictures that attacks lead to or train on."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from shortcut_lightning.files.folders import list_images
from shortcut_lightning.files.images import load_image, load_images


def check(path: str) -> None:
    """Raises ValueError where `path` is given and is no file."""
    if path and not Path(path).expanduser().is_file():
        raise ValueError(f"No image at '{path}' (data.attack.target).")


def read(path: str | Path, like: Tensor) -> Tensor:
    """The target's file as (1, 3, H, W) in [0, 1], `fitted` to `like`. Raises ValueError for one
    that cannot be read."""
    file = Path(path).expanduser()
    try:
        return fitted(load_image(file), like)[None]
    except ValueError as error:
        raise ValueError(f"The image '{path}' {error} (data.attack.target).") from error


def read_folder(folder: str, like: Tensor) -> Tensor:
    """Every image of a folder by name, (M, 3, H, W), `fitted` to `like`. Raises ValueError when
    there is none, or one that cannot be read."""
    key = "attack.training.clean_data_dir"
    paths = list_images(Path(folder).expanduser(), key)
    try:
        return torch.stack(load_images(paths, lambda image: fitted(image, like)))
    except ValueError as error:
        raise ValueError(f"data.{key}: {error}") from error


def fitted(image: Tensor, like: Tensor) -> Tensor:
    """The middle of (3, h, w), as large as fits, at the size of `like`, (N, 3, H, W)."""
    height, width = like.shape[-2:]
    levels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    picture = ImageOps.fit(Image.fromarray(levels), (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(like) / 255


def pattern(like: Tensor, tiles: int = 8) -> Tensor:
    """A black and white chessboard stood on its corner, (1, 3, H, W): strong edges everywhere and
    nothing in it, which is what a target of Mist's kind is for."""
    height, width = like.shape[-2:]
    side = max(2, min(height, width) // tiles)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    board = ((x + y) // side + (x - y + height) // side) % 2
    return board.to(like).expand(1, 3, height, width)


def target(path: str, like: Tensor) -> Tensor:
    """The picture at `path`, or where that is empty the pattern, (1, 3, H, W)."""
    return read(path, like) if path else pattern(like)
