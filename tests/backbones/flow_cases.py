"""What stock diffusers does with each family of rectified flows: sampling, and the denoiser's call
in its DreamBooth example, re-created from the documented behaviour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from flow_models import (
    SIDE,
    write_small_flux,
    write_small_klein,
    write_small_qwen_image,
    write_small_sd3_with_t5,
    write_small_z_image,
)
from torch import Tensor

LENGTH = 32  # of the prompts in T5
CHAT = 128  # and in a language model


@dataclass(frozen=True)
class Case:
    """A family."""

    write: Callable[[Path], Path]
    predict: Callable[[Any, Tensor, Tensor, list[str]], Tensor]  # pipeline, noisy, s, prompts
    call: dict[str, Any]  # how stock diffusers is asked
    guided: bool  # whether negative prompts act
    widths: Sequence[int]  # of the text encoders' tables
    own: dict[str, Any]  # how ours is asked
    module: dict[str, Any]  # settings of a training


def load(folder: Path) -> Any:
    missing = {"text_encoder_3": None, "tokenizer_3": None} if "plain" in folder.name else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, **missing)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(case: Case, pipeline: Any, prompts: Sequence[str], negative: str = "") -> Tensor:
    """Each picture from its own generator."""
    more = {"negative_prompt": negative} if negative else {}
    return torch.cat(
        [
            pipeline(
                prompt=prompt,
                num_inference_steps=3,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
                height=SIDE,
                width=SIDE,
                **(case.call | more),
            ).images
            for seed, prompt in enumerate(prompts)
        ]
    )


def _sd3(pipeline: Any, noisy: Tensor, s: Tensor, prompts: list[str]) -> Tensor:
    hidden, _, pooled, _ = pipeline.encode_prompt(
        prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=LENGTH
    )
    found: Tensor = pipeline.transformer(
        noisy, hidden, pooled, timestep=s.flatten() * 1000, return_dict=False
    )[0]
    return found


def _flux(pipeline: Any, noisy: Tensor, s: Tensor, prompts: list[str]) -> Tensor:
    hidden, pooled, text_ids = pipeline.encode_prompt(prompts, max_sequence_length=LENGTH)
    count, channels, height, width = noisy.shape
    places = pipeline._prepare_latent_image_ids(
        count, height // 2, width // 2, noisy.device, noisy.dtype
    )
    takes = pipeline.transformer.config.guidance_embeds
    found = pipeline.transformer(
        hidden_states=pipeline._pack_latents(noisy, count, channels, height, width),
        timestep=s.flatten(),
        guidance=torch.full([1], 3.5).expand(count) if takes else None,
        pooled_projections=pooled,
        encoder_hidden_states=hidden,
        txt_ids=text_ids,
        img_ids=places,
        return_dict=False,
    )[0]
    unpacked: Tensor = pipeline._unpack_latents(found, SIDE, SIDE, pipeline.vae_scale_factor)
    return unpacked


def _klein(pipeline: Any, noisy: Tensor, s: Tensor, prompts: list[str]) -> Tensor:
    hidden, text_ids = pipeline.encode_prompt(prompts, max_sequence_length=CHAT)
    packed = pipeline._patchify_latents(noisy)
    places = pipeline._prepare_latent_ids(packed)
    found = pipeline.transformer(
        hidden_states=pipeline._pack_latents(packed),
        timestep=s.flatten(),
        guidance=None,
        encoder_hidden_states=hidden,
        txt_ids=text_ids,
        img_ids=places,
        return_dict=False,
    )[0]
    unpacked: Tensor = pipeline._unpatchify_latents(
        pipeline._unpack_latents_with_ids(found, places)
    )
    return unpacked


def _z_image(pipeline: Any, noisy: Tensor, s: Tensor, prompts: list[str]) -> Tensor:
    texts, _ = pipeline.encode_prompt(
        prompts, do_classifier_free_guidance=False, max_sequence_length=CHAT
    )
    times = (1000 - s.flatten() * 1000) / 1000
    found = pipeline.transformer(list(noisy.unsqueeze(2)), times, texts, return_dict=False)[0]
    return -torch.stack(found).squeeze(2)


def _qwen_image(pipeline: Any, noisy: Tensor, s: Tensor, prompts: list[str]) -> Tensor:
    hidden, mask = pipeline.encode_prompt(prompts, max_sequence_length=CHAT)
    count, channels, height, width = noisy.shape
    found = pipeline.transformer(
        hidden_states=pipeline._pack_latents(noisy, count, channels, height, width),
        timestep=s.flatten(),
        encoder_hidden_states=hidden,
        encoder_hidden_states_mask=mask,
        img_shapes=[[(1, height // 2, width // 2)]] * count,
        return_dict=False,
    )[0]
    unpacked: Tensor = pipeline._unpack_latents(found, SIDE, SIDE, pipeline.vae_scale_factor)
    return unpacked[:, :, 0]


CASES = {
    "sd3": Case(
        write_small_sd3_with_t5,
        _sd3,
        {"guidance_scale": 4.0, "max_sequence_length": LENGTH},
        True,
        (32, 48, 96),
        {"guidance_scale": 4.0},
        {},
    ),
    "flux dev": Case(
        write_small_flux,
        _flux,
        {"guidance_scale": 3.5, "max_sequence_length": LENGTH},
        False,
        (32, 48),
        {"guidance_scale": 3.5},
        {"train_guidance": 3.5},
    ),
    "flux schnell": Case(
        lambda folder: write_small_flux(folder, guidance=False),
        _flux,
        {"guidance_scale": 0.0, "max_sequence_length": LENGTH},
        False,
        (32, 48),
        {"guidance_scale": 0.0},
        {},
    ),
    "klein": Case(
        write_small_klein,
        _klein,
        {"guidance_scale": 4.0, "max_sequence_length": CHAT},
        True,
        (24,),
        {"guidance_scale": 4.0},
        {},
    ),
    "klein distilled": Case(
        lambda folder: write_small_klein(folder, distilled=True),
        _klein,
        {"guidance_scale": 4.0, "max_sequence_length": CHAT},
        False,
        (24,),
        {"guidance_scale": 4.0},
        {},
    ),
    "z-image": Case(
        write_small_z_image,
        _z_image,
        {"guidance_scale": 4.0, "max_sequence_length": CHAT},
        True,
        (24,),
        {"guidance_scale": 5.0},  # counted from 1
        {},
    ),
    "qwen-image": Case(
        write_small_qwen_image,
        _qwen_image,
        {"true_cfg_scale": 4.0, "max_sequence_length": CHAT, "negative_prompt": ""},
        True,
        (16,),
        {"guidance_scale": 4.0},
        {},
    ),
}
