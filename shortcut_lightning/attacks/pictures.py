"""Pictures that attacks lead to or train on."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


def check(path: str) -> None:
    """Raises ValueError where `path` is given and is no file."""
    if path and not Path(path).expanduser().is_file():
        raise ValueError(f"No image at '{path}' (data.attack.target).")


def read(path: str | Path, like: Tensor) -> Tensor:
    """An image file as (1, 3, H, W) in [0, 1]: the middle of it, as large as fits, at the size of
    `like`, (N, 3, H, W)."""
    height, width = like.shape[-2:]
    with Image.open(Path(path).expanduser()) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
        picture = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].to(like) / 255


def read_folder(folder: str, like: Tensor) -> Tensor:
    """Every image of a folder by name, (M, 3, H, W). Raises ValueError when there is none."""
    path, rows = Path(folder).expanduser(), []
    for file in sorted(path.iterdir() if path.is_dir() else ()):
        try:
            rows.append(read(file, like))
        except (UnidentifiedImageError, IsADirectoryError):  # captions and the like
            continue
    if not rows:
        raise ValueError(f"No images in '{folder}' (data.attack.training.clean_data_dir).")
    return torch.cat(rows)


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
