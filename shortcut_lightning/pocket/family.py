"""The text-to-image family in Stable Diffusion's own classes, and how it is written to disk."""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from shortcut_lightning.pocket import tokenizer

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

WIDTH = 128  # of the text encoder, hence of the cross-attention


def build_unet(widths: tuple[int, int] = (64, 128)) -> "UNet2DConditionModel":
    """A fresh UNet for latents 4 x 16 x 16, with cross-attention at both levels.

    The shipped one has these widths and 4.3 M parameters. One head without self-attention at
    16 x 16 keeps that level cheap; the 8 x 8 level has both.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 2),
        only_cross_attention=(True, False),
        norm_num_groups=16,
    )


def build_text_encoder() -> "CLIPTextModel":
    """A fresh text encoder (0.7 M): three layers of 128."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**text_settings(WIDTH, layers=3)))


def text_settings(width: int, layers: int) -> dict[str, Any]:
    """Configuration of a text tower over the pocket tokenizer; the end token has the highest id."""
    size = len(tokenizer.tables()[0])
    return {
        "vocab_size": size,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "max_position_embeddings": tokenizer.LENGTH,
        "hidden_act": "quick_gelu",
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
        "pad_token_id": size - 1,
    }


def build_scheduler(prediction_type: str = "epsilon") -> "DDIMScheduler":
    """Stable Diffusion's noise schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def save_text_encoder(model: nn.Module, folder: Path) -> None:
    """Write a text encoder in fp16 with `text_model.` keys, which every reader understands."""
    from safetensors.torch import load_file, save_file

    half = copy.deepcopy(model).half()
    half.save_pretrained(folder)  # type: ignore[operator]
    path = folder / "model.safetensors"
    weights = {_prefixed(name): value for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    declare_float32(folder / "config.json")


def save_family(
    folder: Path, unet: nn.Module, text_encoder: nn.Module, prediction_type: str = "epsilon"
) -> None:
    """Write the pipeline but for the autoencoder, which an earlier step left in `vae/`."""
    import diffusers

    copy.deepcopy(unet).half().save_pretrained(folder / "unet")  # type: ignore[operator]
    save_text_encoder(text_encoder, folder / "text_encoder")
    tokenizer.save_tokenizer(folder / "tokenizer")
    build_scheduler(prediction_type).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def declare_float32(config: Path) -> None:
    """Say float32 in a saved configuration: transformers would else compute in the type on disk."""
    settings = json.loads(config.read_text())
    settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2) + "\n")


def _prefixed(name: str) -> str:
    kept = name.startswith(("text_model.", "text_projection."))
    return name if kept else f"text_model.{name}"
