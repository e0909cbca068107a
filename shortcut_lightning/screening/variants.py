"""What happens to photographs on their way: publishing, and edits that protect nothing."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.concepts.pixels import to_rgb, to_tensor
from shortcut_lightning.files.images import round_to_8_bits
from shortcut_lightning.purifiers.jpeg import jpeg
from shortcut_lightning.purifiers.resampling import resized

Change = Callable[[Tensor, np.random.Generator], Tensor]  # (3, H, W) in [0, 1] -> the same form


def scaled(image: Tensor, factor: float) -> Tensor:
    """Each side times `factor`."""
    height, width = (max(1, round(side * factor)) for side in image.shape[-2:])
    return round_to_8_bits(resized(image[None], (height, width))[0])


def compressed(image: Tensor, quality: int) -> Tensor:
    """Through a JPEG file."""
    return jpeg(image[None], quality)[0]


def _half_and_back(image: Tensor) -> Tensor:
    small = scaled(compressed(image, 75), 0.5)
    height, width = image.shape[-2:]
    return round_to_8_bits(resized(small[None], (height, width))[0])


#: What the card measures, after the picture was made.
PUBLISHED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "as made": lambda image: image,
    "JPEG 90": lambda image: compressed(image, 90),
    "JPEG 75": lambda image: compressed(image, 75),
    "JPEG 50": lambda image: compressed(image, 50),
    "half size": lambda image: scaled(image, 0.5),
    "three quarters": lambda image: scaled(image, 0.75),
    "enlarged by half": lambda image: scaled(image, 1.5),
    "JPEG 75, half and back": _half_and_back,
}


def published(image: Tensor, chance: np.random.Generator) -> Tensor:
    """By chance resized, compressed, both or neither: what training sees."""
    if chance.random() < 0.5:
        image = scaled(image, float(np.exp(chance.uniform(np.log(0.5), np.log(1.8)))))
    if chance.random() < 0.6:
        image = compressed(image, int(chance.integers(45, 97)))
    return image


def _sharpened(image: Tensor, chance: np.random.Generator) -> Tensor:
    mask = ImageFilter.UnsharpMask(chance.uniform(0.7, 2.5), int(chance.uniform(50, 200)), 0)
    return _filtered(image, mask)


def _denoised(image: Tensor, chance: np.random.Generator) -> Tensor:
    smooth = _filtered(image, ImageFilter.MedianFilter(3))
    return round_to_8_bits(torch.lerp(image, smooth, float(chance.uniform(0.5, 1))))


def _upscaled(image: Tensor, chance: np.random.Generator) -> Tensor:
    small = scaled(image, 1 / float(chance.uniform(1.5, 3)))
    height, width = image.shape[-2:]
    return _sharpened(round_to_8_bits(resized(small[None], (height, width))[0]), chance)


def _phone(image: Tensor, chance: np.random.Generator) -> Tensor:
    picture = ImageEnhance.Color(_picture(image)).enhance(chance.uniform(1.1, 1.5))
    picture = ImageEnhance.Contrast(picture).enhance(chance.uniform(1.05, 1.3))
    sharp = _sharpened(_denoised(_tensor(picture), chance), chance)
    return compressed(sharp, int(chance.integers(70, 93)))


def _grainy(image: Tensor, chance: np.random.Generator) -> Tensor:
    """Film grain: grey for the most part, of one to three pixels, strongest in the middle tones."""
    noise = torch.from_numpy(chance.standard_normal(image.shape, dtype=np.float32))
    noise = 0.3 * noise + noise.mean(0, keepdim=True) * 3**0.5
    width = float(chance.uniform(0, 1.2))
    if width > 0.3:
        axis = torch.arange(-4, 5) / width
        line = torch.exp(-axis.square() / 2)
        kernel = (line[:, None] * line)[None, None].expand(3, 1, 9, 9)
        padded = functional.pad(noise[None], [4] * 4, mode="reflect")
        noise = functional.conv2d(padded, kernel, groups=3)[0]
    strength = float(chance.uniform(3, 14)) / 255
    tones = 0.4 + 2.4 * image.mean(0) * (1 - image.mean(0))
    return round_to_8_bits((image + strength * tones * noise / noise.std()).clamp(0, 1))


def uniform_noise(image: Tensor, chance: np.random.Generator, radius: float, sign: bool) -> Tensor:
    """Noise of a radius in /255: independent values up to it, or plus and minus it."""
    noise = torch.from_numpy(chance.uniform(-1, 1, image.shape).astype(np.float32))
    noise = noise.sign() if sign else noise
    return round_to_8_bits((image + radius / 255 * noise).clamp(0, 1))


def _noise(image: Tensor, chance: np.random.Generator) -> Tensor:
    return uniform_noise(image, chance, chance.uniform(4, 16), bool(chance.random() < 0.5))


#: Edits that are no protection, each of a random strength.
INNOCENT: Mapping[str, Change] = {
    "sharpened": _sharpened,
    "denoised": _denoised,
    "upscaled": _upscaled,
    "phone JPEG": _phone,
    "film grain": _grainy,
    "random noise": _noise,
}


def _filtered(image: Tensor, what: ImageFilter.Filter) -> Tensor:
    return _tensor(_picture(image).filter(what))


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(to_rgb(image))


def _tensor(picture: Image.Image) -> Tensor:
    return to_tensor(np.asarray(picture))
