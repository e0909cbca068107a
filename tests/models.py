"""Small random-weight models in Stable Diffusion's folder layout."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

WORDS = ["a", "photo", "of", "sks", "person", "dog", "the", "in", "on", "beach", "noisy"]


def small_tokenizer() -> CLIPTokenizer:
    """Byte-pair encoding over letters, with a few whole words; EOS has the highest id."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer as Tokenizer

    letters = [chr(code) for code in range(33, 127)]
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            if pieces[0] not in vocabulary:
                vocabulary.append(pieces[0])
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    return Tokenizer(vocab=ids, merges=merges, model_max_length=77)


def text_config(tokenizer: CLIPTokenizer, width: int = 32, **options: int) -> CLIPTextConfig:
    """Two layers."""
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return CLIPTextConfig(**settings | options)


def small_vae(size: int, scaling_factor: float) -> AutoencoderKL:
    """f = 4."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=size,
        scaling_factor=scaling_factor,
    )


def write_small_sd(
    folder: Path, prediction_type: str = "epsilon", size: int = 32, seed: int = 0
) -> Path:
    """Writes a random-weight model with SD 1.5's layout (f = 8 becomes f = 4), a few hundred kB."""
    torch.manual_seed(seed)
    tokenizer = small_tokenizer()
    text_encoder = CLIPTextModel(text_config(tokenizer))
    unet = UNet2DConditionModel(
        sample_size=size // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
    )
    vae = small_vae(size, 0.18215)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def write_small_sdxl(folder: Path, size: int = 32, seed: int = 0) -> Path:
    """The same with SDXL's layout: two text encoders (the second with the legacy end id 2, as
    published), a pooled embedding, sizes."""
    torch.manual_seed(seed)
    tokenizer = small_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=size // 4,
        block_out_channels=(32, 64),
        layers_per_block=2,
        cross_attention_dim=32 + 48,
        attention_head_dim=(4, 8),
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
        norm_num_groups=8,
    )
    second = text_config(tokenizer, 48, projection_dim=24, eos_token_id=2)
    StableDiffusionXLPipeline(
        vae=small_vae(size, 0.13025),
        text_encoder=CLIPTextModel(text_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer_2=small_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def write_small_sd3(folder: Path, size: int = 32, seed: int = 0, shift: float = 3.0) -> Path:
    """The layout of Stable Diffusion 3 without its T5: a rectified flow with a transformer, two
    text encoders, latents that are shifted as well as scaled."""
    torch.manual_seed(seed)
    tokenizer = small_tokenizer()
    encoders = [
        CLIPTextModelWithProjection(text_config(tokenizer, width, projection_dim=width))
        for width in (32, 48)
    ]
    transformer = SD3Transformer2DModel(
        sample_size=size // 4,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=96,
        caption_projection_dim=32,
        pooled_projection_dim=80,
        pos_embed_max_size=size // 8,
        qk_norm="rms_norm",
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=size,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    ).save_pretrained(folder, safe_serialization=True)
    return folder
