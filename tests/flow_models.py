"""Small random-weight models of the published layouts of rectified flows, with a T5 of sentence
pieces and a language model of byte pairs, whose tokenizers are made here."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from models import WORDS, small_tokenizer, text_config, write_small_sd3
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SIDE = 32  # pixels; latents are 8 x 8


def small_t5(width: int) -> tuple[T5EncoderModel, T5Tokenizer]:
    """Sentence pieces of letters and a few words, and a table with rows to spare, as published."""
    words = [f"\u2581{word}" for word in WORDS]
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(word, -2.0) for word in words] + [(letter, -5.0) for letter in letters]
    pieces += [(f"<extra_id_{number}>", 0.0) for number in (1, 0)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=2)
    config = T5Config(
        vocab_size=len(tokenizer) + 14,
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config), tokenizer


def small_vae(channels: int, scaling: float, shift: float | None) -> AutoencoderKL:
    """f = 4."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def write_small_sd3_with_t5(folder: Path) -> Path:
    """Stable Diffusion 3 with its third text encoder."""
    write_small_sd3(folder)
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None
    )
    torch.manual_seed(1)
    encoder, tokenizer = small_t5(96)
    pipeline.register_modules(text_encoder_3=encoder, tokenizer_3=tokenizer)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return own_facts(folder, max_sequence_length=32)


def write_small_flux(folder: Path, guidance: bool = True, single_layers: int = 2) -> Path:
    """FLUX.1 dev, or schnell without the input for guidance and the shift by size."""
    torch.manual_seed(0)
    clip = small_tokenizer()
    encoder, tokenizer = small_t5(48)
    FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=32,
            num_layers=1,
            num_single_layers=single_layers,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            pooled_projection_dim=32,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guidance else 1.0, use_dynamic_shifting=guidance
        ),
        vae=small_vae(8, 0.3611, 0.1159),
        text_encoder=CLIPTextModel(text_config(clip, eos_token_id=2)),  # as published
        tokenizer=clip,
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
    ).save_pretrained(folder, safe_serialization=True)
    return own_facts(folder, max_sequence_length=32, native_size=SIDE // 4)


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


SYSTEM = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:"
)


def byte_tokenizer(*words: str) -> Qwen2Tokenizer:
    """Byte pairs of single bytes and a few words, with a chat template."""
    vocabulary = {byte: number for number, byte in enumerate(sorted(ByteLevel.alphabet()))}
    named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *words]
    vocabulary |= {word: len(vocabulary) + number for number, word in enumerate(named)}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=[], additional_special_tokens=named[1:], eos_token=named[2]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def small_qwen(layers: int, tied: bool) -> tuple[Qwen3ForCausalLM, Qwen2Tokenizer]:
    """A language model whose table has rows to spare, as published."""
    tokenizer = byte_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer) + 13,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=tied,
    )
    return Qwen3ForCausalLM(config), tokenizer


def write_small_klein(folder: Path, distilled: bool = False) -> Path:
    """FLUX.2 klein, whose three layers of text are the 9th, 18th and 27th."""
    torch.manual_seed(0)
    encoder, tokenizer = small_qwen(28, tied=True)
    vae = AutoencoderKLFlux2(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=SIDE,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            in_channels=32,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=72,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        is_distilled=distilled,
    ).save_pretrained(folder, safe_serialization=True)
    return own_facts(folder, max_sequence_length=128, native_size=SIDE // 4)


def write_small_z_image(folder: Path) -> Path:
    """Z-Image."""
    torch.manual_seed(0)
    encoder, tokenizer = small_qwen(2, tied=False)
    transformer = ZImageTransformer2DModel(
        in_channels=8,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=24,
        axes_dims=[4, 6, 6],
        axes_lens=[256, 32, 32],
    )
    ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=small_vae(8, 0.3611, 0.1159),
        text_encoder=encoder,
        tokenizer=tokenizer,
    ).save_pretrained(folder, safe_serialization=True)
    return own_facts(folder, max_sequence_length=128, native_size=SIDE // 4)


def write_small_qwen_image(folder: Path) -> Path:
    """Qwen-Image. Its pipeline cuts off the 34 tokens that its system prompt is published to have:
    most of that prompt is one word here."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(SYSTEM[: -(34 - 17)])
    text = {
        "vocab_size": len(tokenizer) + 13,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [1, 1, 2],
            "rope_theta": 1000000.0,
        },
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision | {"out_hidden_size": 16})
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=8,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=torch.linspace(-1, 1, 8).tolist(),
        latents_std=torch.linspace(0.5, 2, 8).tolist(),
    )
    QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            in_channels=32,
            out_channels=8,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, shift_terminal=0.02
        ),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
    ).save_pretrained(folder, safe_serialization=True)
    return own_facts(folder, max_sequence_length=128, native_size=SIDE // 4)


def own_facts(folder: Path, **facts: Any) -> Path:
    (folder / "shortcut_lightning.json").write_text(json.dumps(facts))
    return folder
