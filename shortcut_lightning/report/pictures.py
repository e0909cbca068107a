"""Image tensors as pictures: PIL images, labelled sheets, and data URIs for the page."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw
from torch import Tensor

_MARGIN = 8
_LABEL = 18  # height of a line of text in pixels


class Row(NamedTuple):
    """One line of a sheet: what it shows, and groups of images side by side."""

    label: str
    groups: list[list[Tensor]]  # each image (3, H, W) in [0, 1]


def to_pil(image: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] -> 8-bit RGB, rounded to the nearest level."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def sheet(rows: Sequence[Row], headings: Sequence[str], side: int = 128) -> Image.Image:
    """One picture with a labelled row per entry and one block of columns per heading.

    Images are shown `side` pixels high and wide; smaller ones are enlarged without smoothing.
    """
    widths = [
        max((len(row.groups[i]) for row in rows), default=1) * (side + _MARGIN)
        for i in range(len(headings))
    ]
    lefts = [_MARGIN + sum(widths[:i]) + i * 2 * _MARGIN for i in range(len(headings))]
    height = _LABEL + _MARGIN + len(rows) * (_LABEL + side + _MARGIN)
    canvas = Image.new("RGB", (lefts[-1] + widths[-1], height), "white")
    draw = ImageDraw.Draw(canvas)
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, _MARGIN // 2), heading, fill="black")
    for number, row in enumerate(rows):
        top = _LABEL + _MARGIN + number * (_LABEL + side + _MARGIN)
        draw.text((_MARGIN, top), row.label, fill="#555555")
        for left, images in zip(lefts, row.groups, strict=True):
            for column, image in enumerate(images):
                where = (left + column * (side + _MARGIN), top + _LABEL)
                canvas.paste(_sized(to_pil(image), side), where)
    return canvas


def data_uri(image: Tensor, largest_side: int = 256) -> str:
    """(3, H, W) in [0, 1] -> a `data:` address. Small images are exact (PNG); images larger than
    `largest_side` are shrunk and stored as JPEG, so that a page of many stays light."""
    picture, buffer = to_pil(image), io.BytesIO()
    if max(picture.size) <= largest_side:
        picture.save(buffer, "PNG")
        kind = "png"
    else:
        picture.thumbnail((largest_side, largest_side), Image.Resampling.LANCZOS)
        picture.save(buffer, "JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _sized(picture: Image.Image, side: int) -> Image.Image:
    enlarge = max(picture.size) < side
    how = Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS
    return picture.resize((side, side), how)
