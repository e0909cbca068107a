"""Image files to tensors: whatever a camera, scanner or web page left, as 8-bit RGB in sRGB.

A tensor here is float32 (3, H, W) in [0, 1] and holds multiples of 1/255 only, so that writing it
as PNG and reading it back gives the same numbers.
"""

import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, features
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.colour import BrokenProfile, in_srgb, is_grey, profile_of
from shortcut_lightning.files.names import shown

log = logging.getLogger(__name__)

HEIF = (".heic", ".heif", ".hif")
JPEG_2000 = (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".jfif", ".jpe", ".avif", *JPEG_2000, ".tga", *HEIF),
)
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 lie on their side
MIN_SIDE = 8  # pixels; anything smaller is an icon or a mistake


def round_to_8_bits(images: Tensor) -> Tensor:
    """Clamps to [0, 1] and rounds to the nearest multiple of 1/255, as saving does."""
    return (images.clamp(0, 1) * 255).round() / 255


def open_image(path: Path, data: bytes | None = None) -> Image.Image:
    """`Image.open` with every format of `SUFFIXES`; `data` is what the file holds, where it is not
    on a disk.

    Raises ValueError where something that is needed for a format is not installed, else what Pillow
    raises.
    """
    suffix = path.suffix.lower()
    if suffix in HEIF and not _reads_heif():
        raise ValueError(
            "is HEIC, which needs the extra heif: pip install 'shortcut-lightning[heif]'"
        )
    for kind, feature in (((".avif",), "avif"), (JPEG_2000, "jpg_2000")):
        if suffix in kind and not features.check(feature):
            raise ValueError(f"is {suffix}, which this build of Pillow cannot read")
    return Image.open(path if data is None else BytesIO(data))


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width of the picture in a file, as `load_image` would turn it."""
    with open_image(path) as opened:
        width, height = opened.size
        lying = opened.getexif().get(_ORIENTATION, 1) >= 5
    return (width, height) if lying else (height, width)


def load_image(path: Path, data: bytes | None = None) -> Tensor:
    """One file, or the `data` of one, as float32 (3, H, W) in [0, 1], 8-bit rounded, in sRGB.

    The EXIF rotation is applied, a colour profile is converted from, transparency is laid over
    white, 16-bit depths are scaled, of an animation the first frame is taken. A profile that cannot
    be used is named, and the picture read as sRGB.

    Raises ValueError for a file that is damaged, has an unknown depth or is under 8 pixels.
    """
    with _told(), open_image(path, data) as opened:
        return read_picture(opened, shown(path))


def read_picture(picture: Image.Image, name: str) -> Tensor:
    """A picture that Pillow has opened, as `load_image` reads a file; `name` is for the log.

    Raises ValueError where `load_image` does.
    """
    with _told():
        pixels = _in_srgb(ImageOps.exif_transpose(picture), name)
    width, height = pixels.size
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"is {width} x {height} pixels, under {MIN_SIDE} pixels a side")
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


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
            complaints.append(f"{shown(path.name)} {error}")
    if complaints:
        folder = paths[0].parent
        raise ValueError(
            f"{len(complaints)} of {len(paths)} images in {folder} cannot be used: "
            + "; ".join(complaints)
            + ". Repair or remove them."
        )
    return images


def save_image(image: Tensor, path: Path, notes: Mapping[str, str] = {}) -> None:
    """Writes (3, H, W) in [0, 1] as PNG, rounded to 8 bits, with `notes` for `read_notes`.
    Under a name of its own first, so that a killed run leaves no half picture and two runs may
    write the same one."""
    pixels = (round_to_8_bits(image) * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    texts = PngInfo()
    for key, text in notes.items():
        texts.add_itxt(key, text)
    with atomic(path) as half:
        Image.fromarray(pixels).save(half, format="PNG", pnginfo=texts)


def write_png(picture: Image.Image, path: Path) -> None:
    """Writes a drawn picture, as a whole or not at all."""
    with atomic(path) as half:
        picture.save(half, "PNG")


def read_notes(path: Path) -> dict[str, str]:
    """What `save_image` noted in a PNG, among other texts; empty for a file that has none or cannot
    be read, which `load_image` names."""
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            return {str(key): str(text) for key, text in opened.info.items()}
    except (OSError, SyntaxError, ValueError, struct.error):
        return {}


def resize_shorter_side(image: Tensor, side: int, multiple: int = 1) -> Tensor:
    """(3, H, W) -> the same picture with its shorter side at `side` pixels and the longer one at a
    multiple; antialiased bilinear, as diffusers' training scripts do. A picture that already fits
    is returned as it is."""
    height, width = image.shape[-2:]
    scale = side / min(height, width) / multiple
    size = tuple(max(side, round(length * scale) * multiple) for length in (height, width))
    if size == (height, width):
        return image
    resized = functional.interpolate(image[None], size, mode="bilinear", antialias=True)
    return round_to_8_bits(resized[0])


def shrunk(image: Tensor, side: int) -> Tensor:
    """(3, H, W) with its longer side at most `side` pixels; antialiased, in its own shape."""
    longer = max(image.shape[-2:])
    if longer <= side:
        return image
    size = [max(1, round(length * side / longer)) for length in image.shape[-2:]]
    resized = functional.interpolate(image[None], size, mode="bilinear", antialias=True)
    return round_to_8_bits(resized[0])


def center_crop(image: Tensor, side: int) -> Tensor:
    """The middle `side` x `side` pixels of (..., H, W)."""
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


@cache
def _reads_heif() -> bool:
    """Whether HEIC can be read; teaches Pillow to where it can. pi-heif only reads, and comes
    without the GPL's encoder that pillow-heif brings; either will do."""
    for package in ("pi_heif", "pillow_heif"):
        try:
            import_module(package).register_heif_opener()
        except ImportError:
            continue
        return True
    return False


@contextmanager
def _told() -> Iterator[None]:
    """Pillow raises whatever a damaged file leads it to, EXIF above all: ValueError here."""
    try:
        yield
    except (
        OSError,
        SyntaxError,
        TypeError,
        LookupError,
        EOFError,
        OverflowError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"cannot be read ({error})") from error


def _in_srgb(picture: Image.Image, name: str) -> Image.Image:
    profile = profile_of(picture)
    try:
        return _to_rgb(picture, profile)
    except BrokenProfile as error:
        _say(f"{name}: its colour profile cannot be used ({error}); it is read as sRGB.")
        return _to_rgb(picture, b"")


@cache  # a picture is read several times in a run
def _say(sentence: str) -> None:
    log.warning("%s", sentence)


def _to_rgb(picture: Image.Image, profile: bytes) -> Image.Image:
    grey = is_grey(picture)
    if picture.mode.startswith("I;16") or picture.mode == "I":
        pixels = np.asarray(picture)
        if pixels.max() > 65535 or pixels.min() < 0:
            raise ValueError("has 32-bit pixels; save it with 8 or 16 bits")
        picture = Image.fromarray(np.rint(pixels / 257).astype(np.uint8))
        return in_srgb(picture, profile, grey)
    if picture.mode == "F":
        raise ValueError("has floating-point pixels; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        seen = in_srgb(picture.convert("RGB"), profile, grey)
        seen.putalpha(picture.getchannel("A"))
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return in_srgb(picture, profile, grey)
