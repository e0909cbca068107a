"""Models with random weights in published layouts, built without any hub, and tiny ones.

Tokenizers know a dozen words; embedding tables have their published size all the same.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, str(Path(__file__).parents[1]))
from models import small_tokenizer, text_config

from shortcut_lightning.backbones import Backbone
from shortcut_lightning.backbones.sdxl import StableDiffusionXL
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

Layout = dict[str, dict[str, Any]]

BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
TINY_VAE = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 8,
}
CLIP_L = {
    "width": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 49408,
}
CLIP_G = CLIP_L | {
    "width": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
TINY_CLIP: dict[str, Any] = {"width": 32}

SD15: Layout = {
    "unet": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "vae": VAE | {"scaling_factor": 0.18215},
    "text": CLIP_L,
}
TINY_SD: Layout = {
    "unet": {
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 8,
    },
    "vae": TINY_VAE | {"scaling_factor": 0.18215},
    "text": TINY_CLIP,
}
SDXL: Layout = {
    "unet": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    },
    "vae": VAE | {"scaling_factor": 0.13025, "force_upcast": True},
    "text": CLIP_L,
    "text_2": CLIP_G,
}
TINY_SDXL: Layout = {
    "unet": {
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (4, 8),
        "cross_attention_dim": 32 + 48,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
        "norm_num_groups": 8,
    },
    "vae": TINY_VAE | {"scaling_factor": 0.13025},
    "text": TINY_CLIP,
    "text_2": {"width": 48, "projection_dim": 24},
}
FLUX: Layout = {
    "transformer": {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56),
    },
    "vae": VAE
    | {
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "sample_size": 1024,
    },
    "text": CLIP_L,
}
TINY_FLUX: Layout = {
    "transformer": FLUX["transformer"]
    | {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "axes_dims_rope": (4, 6, 6),
    },
    "vae": TINY_VAE
    | {
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "sample_size": 32,
    },
    "text": TINY_CLIP,
}


def stable_diffusion(device: torch.device, tiny: bool) -> Backbone:
    """Stable Diffusion 1.5 at 512, float32."""
    layout = TINY_SD if tiny else SD15
    with drawn_on(device):
        return StableDiffusion(
            StableDiffusionPipeline(
                vae=AutoencoderKL(**layout["vae"]),
                text_encoder=_clip(CLIPTextModel, layout["text"]),
                tokenizer=small_tokenizer(),
                unet=UNet2DConditionModel(**layout["unet"]),
                scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
        )


def sdxl(device: torch.device, tiny: bool) -> Backbone:
    """Stable Diffusion XL at 1024, float32."""
    layout = TINY_SDXL if tiny else SDXL
    with drawn_on(device):
        return StableDiffusionXL(
            StableDiffusionXLPipeline(
                vae=AutoencoderKL(**layout["vae"]),
                text_encoder=_clip(CLIPTextModel, layout["text"]),
                tokenizer=small_tokenizer(),
                text_encoder_2=_clip(CLIPTextModelWithProjection, layout["text_2"]),
                tokenizer_2=small_tokenizer(),
                unet=UNet2DConditionModel(**layout["unet"]),
                scheduler=EulerDiscreteScheduler(**BETAS),
                add_watermarker=False,
            )
        )


def flux(device: torch.device, tiny: bool) -> Backbone:
    """FLUX.1 dev at 1024, its transformer in bfloat16. Its T5 is a small one that is never asked:
    prompts are embedded once, before anything is timed.

    Raises ImportError where the family is missing.
    """
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    from shortcut_lightning.backbones.flux import Flux

    layout = TINY_FLUX if tiny else FLUX
    with drawn_on(device):
        with default_dtype(torch.bfloat16):
            transformer = FluxTransformer2DModel(**layout["transformer"])
        return Flux(
            FluxPipeline(
                scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
                vae=AutoencoderKL(**layout["vae"]),
                text_encoder=_clip(CLIPTextModel, layout["text"]),
                tokenizer=small_tokenizer(),
                text_encoder_2=T5EncoderModel(
                    T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
                ),
                tokenizer_2=small_tokenizer(),
                transformer=transformer,
            )
        )


def _clip(kind: Callable[..., Any], sizes: dict[str, Any]) -> Any:
    return kind(text_config(small_tokenizer(), **sizes))


@contextmanager
def drawn_on(device: torch.device) -> Iterator[None]:
    """Weights are drawn where they are needed."""
    torch.manual_seed(0)
    with torch.device(device):
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Of what is made inside."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)
