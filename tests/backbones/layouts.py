"""The published layouts of large models, as their configurations say them."""

import json
from pathlib import Path
from typing import Any

_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
_T5 = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 32128,
    "tie_word_embeddings": False,
}
_QWEN3_4B = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
}
_UNET_CROSS = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_SD15 = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [_UNET_CROSS[0]] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + [_UNET_CROSS[1]] * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
_SDXL = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D"] + [_UNET_CROSS[0]] * 2,
    "up_block_types": [_UNET_CROSS[1]] * 2 + ["UpBlock2D"],
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD35_MEDIUM = {
    "sample_size": 128,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}
_KLEIN_4B = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
_QWEN25_VL_7B = {
    "text_config": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    },
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
    },
    "tie_word_embeddings": False,
}
Part = tuple[str, str, dict[str, Any]]
_CLIP = ("transformers", "CLIPTextModelWithProjection")
_ENCODER: Part = ("transformers", "T5EncoderModel", _T5)
_LANGUAGE: Part = ("transformers", "Qwen3ForCausalLM", _QWEN3_4B)
_AUTOENCODER: Part = ("diffusers", "AutoencoderKL", _VAE)
_OLD_AUTOENCODER: Part = ("diffusers", "AutoencoderKL", _VAE | {"latent_channels": 4})
_UNET = ("diffusers", "UNet2DConditionModel")

# By recipe: the pipeline, its parts, the billions of weights that its makers give the denoiser.
LAYOUTS: dict[str, tuple[str, dict[str, Part], float]] = {
    "sd15": (
        "StableDiffusionPipeline",
        {
            "unet": (*_UNET, _SD15),
            "vae": _OLD_AUTOENCODER,
            "text_encoder": ("transformers", "CLIPTextModel", _CLIP_L),
        },
        0.86,
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {
            "unet": (*_UNET, _SDXL),
            "vae": _OLD_AUTOENCODER,
            "text_encoder": ("transformers", "CLIPTextModel", _CLIP_L),
            "text_encoder_2": (*_CLIP, _CLIP_G),
        },
        2.6,
    ),
    "sd35": (
        "StableDiffusion3Pipeline",
        {
            "transformer": ("diffusers", "SD3Transformer2DModel", _SD35_MEDIUM),
            "vae": _AUTOENCODER,
            "text_encoder": (*_CLIP, _CLIP_L),
            "text_encoder_2": (*_CLIP, _CLIP_G),
            "text_encoder_3": _ENCODER,
        },
        2.5,
    ),
    "flux": (
        "FluxPipeline",
        {
            "transformer": ("diffusers", "FluxTransformer2DModel", {"guidance_embeds": True}),
            "vae": _AUTOENCODER,
            "text_encoder": ("transformers", "CLIPTextModel", _CLIP_L),
            "text_encoder_2": _ENCODER,
        },
        12,
    ),
    "flux2_klein": (
        "Flux2KleinPipeline",
        {
            "transformer": ("diffusers", "Flux2Transformer2DModel", _KLEIN_4B),
            "vae": ("diffusers", "AutoencoderKLFlux2", {}),
            "text_encoder": _LANGUAGE,
        },
        4,
    ),
    "qwen_image": (
        "QwenImagePipeline",
        {
            "transformer": ("diffusers", "QwenImageTransformer2DModel", {}),
            "vae": ("diffusers", "AutoencoderKLQwenImage", {}),
            "text_encoder": (
                "transformers",
                "Qwen2_5_VLForConditionalGeneration",
                _QWEN25_VL_7B,
            ),
        },
        20,
    ),
    "z_image": (
        "ZImagePipeline",
        {
            "transformer": ("diffusers", "ZImageTransformer2DModel", {}),
            "vae": _AUTOENCODER,
            "text_encoder": _LANGUAGE,
        },
        6,
    ),
}


def write_layout(folder: Path, name: str) -> Path:
    """A folder of configurations without weights."""
    pipeline, parts, _ = LAYOUTS[name]
    index: dict[str, Any] = {"_class_name": pipeline}
    for part, (library, kind, settings) in parts.items():
        index[part] = [library, kind]
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(settings))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
