"""Light, surface texture, sensor noise and degradations, on float pictures (H, W, 3) in [0, 1]."""

import numpy as np
from PIL import Image, ImageFilter

SENSOR_NOISE = 0.008


def develop(
    pixels: np.ndarray, light: tuple[float, float], warmth: float, rng: np.random.Generator
) -> np.ndarray:
    """Light from one side, a colour cast, a soft surface texture and the sensor's own noise."""
    size = pixels.shape[0]
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle, gain = light
    ramp = 1 + gain * (np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None])
    surface = 1 + 0.018 * smooth_noise(size, 3, rng)
    cast = np.array([1 + warmth, 1, 1 - warmth], np.float32)
    sensor = SENSOR_NOISE * rng.standard_normal(pixels.shape, dtype=np.float32)
    return pixels * (ramp * surface)[..., None] * cast + sensor


def degrade(
    pixels: np.ndarray, quality: str, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """The picture as "noisy" or "blurry" as `strength` in [0, 1] says; unchanged when clean."""
    if quality == "noisy":
        return pixels + (0.06 + 0.13 * strength) * grain(pixels.shape[0], rng)
    if quality == "blurry":
        image = Image.fromarray(to_bytes(pixels))
        blurred = image.filter(ImageFilter.GaussianBlur(1.4 + 1.2 * strength))
        return np.asarray(blurred, np.float32) / 255
    return pixels


def pattern(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise alone: strong grain over a soft wash of two colours."""
    ramp = 0.5 + 0.3 * smooth_noise(size, 16, rng)[..., None].clip(-1.6, 1.6)
    first, second = rng.random((2, 3)).astype(np.float32)
    return first * ramp + second * (1 - ramp) + rng.uniform(0.15, 0.3) * grain(size, rng)


def grain(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit variance and 2 to 4 px grain (size, size, 3): coarse enough for an autoencoder.

    Half of it is grey. A random gain before a tanh takes it from film grain to a maze of two tones.
    """
    width = rng.uniform(2.0, 4.0)
    layers = np.stack([smooth_noise(size, width, rng) for _ in range(4)], -1)
    wide = np.stack([smooth_noise(size, 2 * width, rng) for _ in range(4)], -1)
    layers = layers - 0.6 * wide
    grey = rng.random() < 0.5
    noise = layers[..., :3] + (3.0 if grey else 0.6) * layers[..., 3:]
    noise = np.tanh(rng.uniform(0.3, 2.5) * noise / noise.std())
    return (noise / noise.std()).astype(np.float32)


def smooth_noise(size: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of about `width` px and unit variance (size, size)."""
    edge = 8
    full = size + 2 * edge
    cells = max(3, round(full / width))
    small = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    noise = np.asarray(small.resize((full, full), Image.Resampling.BICUBIC))
    noise = noise[edge : edge + size, edge : edge + size]
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """uint8 picture of a float one in [0, 1], clipped and rounded."""
    return (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)
