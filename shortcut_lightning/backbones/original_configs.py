"""The architectures of Stable Diffusion 1.x, 2.x and XL, which single files do not tell.

Sizes are those of the papers (arXiv 2112.10752, 2307.01952) and of the published weights. Arguments
are those of diffusers' and transformers' classes.
"""

from typing import Any, Literal

Kind = Literal["1.x", "2.x", "XL"]

_CHANNELS = (320, 640, 1280, 1280)
_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
_CLIP = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
_CLIP_L = _CLIP | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}

UNETS: dict[Kind, dict[str, Any]] = {
    "1.x": {
        "sample_size": 64,
        "block_out_channels": _CHANNELS,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "2.x": {
        "sample_size": 64,
        "block_out_channels": _CHANNELS,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "XL": {
        "sample_size": 128,
        "block_out_channels": _CHANNELS[:3],
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    },
}


def autoencoder(kind: Kind) -> dict[str, Any]:
    """Arguments of AutoencoderKL."""
    return {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 1024 if kind == "XL" else 512,
        "scaling_factor": 0.13025 if kind == "XL" else 0.18215,
    }


def text_encoders(kind: Kind) -> list[dict[str, Any]]:
    """Arguments of CLIPTextConfig: OpenAI's L for 1.x; open_clip's H without its last layer for
    2.x; L and open_clip's bigG for XL."""
    if kind == "1.x":
        return [_CLIP_L]
    wide = {"hidden_act": "gelu"} | _CLIP
    if kind == "2.x":
        return [
            wide
            | {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 23,
                "num_attention_heads": 16,
                "projection_dim": 512,
            }
        ]
    big = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    }
    return [_CLIP_L, wide | big]


def scheduler(kind: Kind, prediction_type: str, zero_snr: bool) -> tuple[str, dict[str, Any]]:
    """The class of diffusers that the published model samples with, and its arguments."""
    common = _SCHEDULE | {"prediction_type": prediction_type}
    if kind == "XL":
        options = {"timestep_spacing": "leading", "rescale_betas_zero_snr": zero_snr}
        return "EulerDiscreteScheduler", common | options
    common["set_alpha_to_one"] = False
    if prediction_type == "v_prediction":
        return "DDIMScheduler", common | {"clip_sample": False}
    return "PNDMScheduler", common | {"skip_prk_steps": True}
