"""Pixels are sRGB: a picture in another colour space is converted by the profile it carries.

By Pillow's ImageCms with the perceptual intent. A profile that does what sRGB does, to two levels
of 255, is taken for sRGB and changes nothing.
"""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

BrokenProfile = ImageCms.PyCMSError  # what is raised for a profile that cannot be used

_GREY = ("1", "L", "LA", "La", "I", "F")
_SAME = 2  # of 255; profiles of sRGB differ so much by their rounding


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture has one channel beside transparency, so that its profile has one too."""
    return picture.mode in _GREY or picture.mode.startswith("I;16")


def in_srgb(picture: Image.Image, profile: bytes, grey: bool) -> Image.Image:
    """A picture of 8 bits without transparency as RGB in sRGB.

    `profile` is an ICC profile, b"" for none, which is read as sRGB; `grey` says that it speaks of
    one channel. Raises `BrokenProfile` where it is damaged or of another kind than the picture.
    """
    mode = "L" if grey else "CMYK" if picture.mode == "CMYK" else "RGB"
    change = _to_srgb(profile, mode) if profile else None
    if change is None:
        return picture.convert("RGB")
    changed = ImageCms.applyTransform(picture.convert(mode), change)
    assert changed is not None  # None is for changes in place
    return changed


def profile_of_copy(picture: Image.Image) -> bytes:
    """The profile for an RGB copy whose pixels were read as sRGB: the picture's own where that is
    sRGB, else one of sRGB, and none where the picture has none that can be used."""
    profile = profile_of(picture)
    if not profile:
        return b""
    grey, mode = is_grey(picture), "CMYK" if picture.mode == "CMYK" else "RGB"
    try:
        same = _to_srgb(profile, "L" if grey else mode) is None
    except BrokenProfile:
        return b""
    return profile if same and mode == "RGB" and not grey else srgb_profile()


def profile_of(picture: Image.Image) -> bytes:
    """The ICC profile that a picture carries, b"" for none."""
    profile = picture.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else b""


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An ICC profile of sRGB, the same bytes whenever it is made."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[24:36] = bytes(12)  # the date
    return bytes(made)


@lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where the transform would change nothing."""
    change = ImageCms.buildTransform(
        ImageCms.getOpenProfile(BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.PERCEPTUAL,
    )
    if mode == "CMYK":
        return change
    probe = _probe().convert(mode)
    changed = ImageCms.applyTransform(probe, change)
    assert changed is not None
    apart = np.asarray(changed).astype(int) - np.asarray(probe.convert("RGB")).astype(int)
    return None if np.abs(apart).max() <= _SAME else change


def _probe() -> Image.Image:
    """Greys and colours of the whole cube."""
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    greys = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    return Image.fromarray(np.concatenate([cube, greys])[None])
