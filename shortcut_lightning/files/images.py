"""Image files to tensors: whatever a camera, scanner or web page left, as 8-bit RGB.

A tensor here is float32 (3, H, W) in [0, 1] and holds multiples of 1/255 only, so that writing it
as PNG and reading it back gives the same numbers.
"""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.files.whole import whole

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MIN_SIDE = 8  # pixels; anything smaller is an icon or a mistake


def round_to_8_bits(images: Tensor) -> Tensor:
    """Clamps to [0, 1] and rounds to the nearest multiple of 1/255, as saving does."""
    return (images.clamp(0, 1) * 255).round() / 255


def load_image(path: Path) -> Tensor:
    """One file as float32 (3, H, W) in [0, 1], 8-bit rounded.

    The EXIF rotation is applied, transparency is laid over white, 16-bit depths are scaled, of an
    animation the first frame is taken.

    Raises ValueError for a file that is damaged, has an unknown depth or is under 8 pixels.
    """
    try:
        with Image.open(path) as opened:
            picture = _to_rgb(ImageOps.exif_transpose(opened))
    # Pillow raises whatever a damaged file leads it to, EXIF above all.
    except (
        OSError,
        SyntaxError,
        TypeError,
        KeyError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"cannot be read ({error})") from error
    width, height = picture.size
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"is {width} x {height} pixels, under {MIN_SIDE} pixels a side")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def load_images(
    paths: Sequence[Path], prepare: Callable[[Tensor], Tensor] = lambda image: image
) -> list[Tensor]:
    """All files in order, each passed through `prepare` at once so that full-size pictures do not
    pile up. One ValueError names every bad file."""
    images, complaints = [], []
    for path in paths:
        try:
            images.append(prepare(load_image(path)))
        except ValueError as error:
            complaints.append(f"{path.name} {error}")
    if complaints:
        folder = paths[0].parent
        raise ValueError(
            f"{len(complaints)} of {len(paths)} images in {folder} cannot be used: "
            + "; ".join(complaints)
            + ". Repair or remove them."
        )
    return images


def save_image(image: Tensor, path: Path) -> None:
    """Writes (3, H, W) in [0, 1] as PNG, rounded to 8 bits. Under a name of its own first, so that
    a killed run leaves no half picture and two runs may write the same one."""
    pixels = (round_to_8_bits(image) * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    with whole(path) as half:
        Image.fromarray(pixels).save(half, format="PNG")


def resize_shorter_side(image: Tensor, side: int) -> Tensor:
    """(3, H, W) -> the same picture with its shorter side at `side` pixels; antialiased bilinear,
    as diffusers' training scripts do. A picture that already fits is returned as it is."""
    height, width = image.shape[-2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    if size == (height, width):
        return image
    resized = functional.interpolate(image[None], size, mode="bilinear", antialias=True)
    return round_to_8_bits(resized[0])


def center_crop(image: Tensor, side: int) -> Tensor:
    """The middle `side` x `side` pixels of (3, H, W)."""
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        pixels = np.asarray(picture)
        if pixels.max() > 65535 or pixels.min() < 0:
            raise ValueError("has 32-bit pixels; save it with 8 or 16 bits")
        return Image.fromarray(np.rint(pixels / 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("has floating-point pixels; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
