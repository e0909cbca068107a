"""Image-caption pairs whose membership is asked, read from disk only when their turn comes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from shortcut_lightning.files.folders import Captioned, list_images, read_folder
from shortcut_lightning.files.images import (
    center_crop,
    load_image,
    resize_shorter_side,
    round_to_8_bits,
)
from shortcut_lightning.files.names import shown


@dataclass(frozen=True)
class Picture:
    """One image with its caption.

    `key` is a 63-bit hash of the 8-bit pixels at `resolution`: it seeds the image's noise, names
    its rows on disk and finds exact copies.
    """

    name: str
    caption: str
    key: int
    source: Path | Tensor  # a file, or (3, H, W) float32 in [0, 1]
    resolution: int

    def pixels(self) -> Tensor:
        """(3, R, R) float32 in [0, 1]: shorter side resized, middle cropped, as in training."""
        return prepared(self.source, self.resolution)

    def saying(self, caption: str) -> "Picture":
        """The same image with another caption; its noise stays the same."""
        return replace(self, caption=caption)

    @property
    def row(self) -> str:
        """Names this image-caption pair in files of scores."""
        said = hashlib.sha256(self.caption.encode()).hexdigest()[:8]
        return f"{self.key:016x}-{said}"


def prepared(source: Path | Tensor, resolution: int) -> Tensor:
    """(3, R, R) float32 in [0, 1], 8-bit rounded. Raises ValueError for a damaged file."""
    image = load_image(source) if isinstance(source, Path) else round_to_8_bits(source.float())
    return center_crop(resize_shorter_side(image, resolution), resolution)


def picture(name: str, caption: str, source: Path | Tensor, resolution: int) -> Picture:
    """Reads an image once to know its key. Raises ValueError for a damaged file."""
    return Picture(name, caption, content_key(prepared(source, resolution)), source, resolution)


def content_key(pixels: Tensor) -> int:
    """63-bit hash of the 8-bit pixels of (3, H, W) in [0, 1]."""
    levels = (pixels * 255).round().to(torch.uint8).cpu().contiguous().numpy()
    return int.from_bytes(hashlib.sha256(levels.tobytes()).digest()[:8], "big") >> 1


def read_pictures(
    folder: Path, key: str, resolution: int, caption: str = ""
) -> tuple[list[Picture], list[str]]:
    """The images of a folder, and a sentence for each file that cannot be used.

    Captions come from `metadata.jsonl` or `.txt` files; a non-empty `caption` replaces them all.
    `key` is the config key of the folder, for messages.

    Raises ValueError for a missing or empty folder, a missing caption, or no usable image.
    """
    full = f"audit.{key}"
    try:
        if caption:
            paths = list_images(folder, full)
            found = [Captioned(path, caption, shown(path.name)) for path in paths]
        else:
            found = read_folder(folder, full, captions=True)
    except ValueError as error:
        hint = "set audit.caption to one sentence for all images"
        raise ValueError(str(error).replace("set data.use_captions to false", hint)) from error
    pictures, complaints = [], []
    for path, text, name in found:
        try:
            pictures.append(picture(name, text, path, resolution))
        except ValueError as error:
            complaints.append(f"{name} in {folder} (audit.{key}) was left out: it {error}.")
    if not pictures:
        raise ValueError(f"None of the {len(found)} images in {folder} (audit.{key}) can be used.")
    return pictures, complaints


def require_captions(pictures: Sequence[Picture], who: str) -> None:
    """Raises ValueError when a score that needs captions is given images without."""
    mute = [each.name for each in pictures if not each.caption]
    if mute:
        raise ValueError(
            f"{who} needs a caption for every image; {len(mute)} of {len(pictures)} have none: "
            f"{', '.join(mute[:5])}. Add captions, or set audit.caption to one sentence for all."
        )
