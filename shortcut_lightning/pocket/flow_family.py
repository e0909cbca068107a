"""The second family: a rectified flow with a transformer, in Stable Diffusion 3's own classes.

It begins with the other family's text encoder, as SD 3 and FLUX share CLIP-L with SD 1.5; it shares
nothing else: an autoencoder of its own with twice the latent channels, a second text encoder, joint
attention, another target.
"""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from shortcut_lightning.pocket import family, tokenizer

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection

CHANNELS = 8  # of the latents
SECOND = 64  # width of the second text encoder
LENGTH = 48  # tokens; the longest caption has 36
SHIFT = 1.5  # of the schedule: how much of it is spent at high noise


def build_transformer() -> "SD3Transformer2DModel":
    """A fresh transformer (7.8 M) for latents 8 x 16 x 16 and `LENGTH` text tokens."""
    from diffusers import SD3Transformer2DModel

    width = family.WIDTH + SECOND
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=width,
        caption_projection_dim=6 * 32,
        pooled_projection_dim=width,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


def build_text_encoders() -> "list[CLIPTextModelWithProjection]":
    """Two fresh text encoders: three layers of 128 as the other family's, two layers of 64."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return [
        CLIPTextModelWithProjection(CLIPTextConfig(**family.text_settings(width, layers=layers)))
        for width, layers in ((family.WIDTH, 3), (SECOND, 2))
    ]


def build_scheduler() -> "FlowMatchEulerDiscreteScheduler":
    """The straight path from noise to picture, with `SHIFT`."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def save_family(folder: Path, transformer: nn.Module, encoders: list[nn.Module]) -> None:
    """Write the pipeline in fp16 but for the autoencoder, which an earlier step left in `vae/`."""
    import diffusers

    copy.deepcopy(transformer).half().save_pretrained(folder / "transformer")  # type: ignore[operator]
    for name, encoder in zip(("text_encoder", "text_encoder_2"), encoders, strict=True):
        family.save_text_encoder(encoder, folder / name)
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer.save_tokenizer(folder / name, LENGTH)
    build_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": [None, None],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "tokenizer_3": [None, None],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    # There is no T5, and no zeros in its place.
    (folder / "shortcut_lightning.json").write_text('{"max_sequence_length": 0}\n')
