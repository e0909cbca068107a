"""Pure numbers about sets of images. Nothing here knows a Trainer."""

from shortcut_lightning.metrics.clip_alignment import image_image_similarity, image_text_similarity
from shortcut_lightning.metrics.encoders import (
    ImageEncoder,
    ImageTextEncoder,
    PocketAttributes,
    PocketClip,
    PocketIdentity,
)
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.metrics.frechet import frechet_distance, kernel_distance
from shortcut_lightning.metrics.identity import identity_match
from shortcut_lightning.metrics.pretrained import Clip, Dino, Inception

__all__ = [
    "Clip",
    "Dino",
    "Estimate",
    "ImageEncoder",
    "ImageTextEncoder",
    "Inception",
    "PocketAttributes",
    "PocketClip",
    "PocketIdentity",
    "frechet_distance",
    "identity_match",
    "image_image_similarity",
    "image_text_similarity",
    "kernel_distance",
    "mean_estimate",
]
