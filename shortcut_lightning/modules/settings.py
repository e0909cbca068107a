"""Settings of a DreamBooth run that belong together and are typed rarely.

A module's `hparams` hold them by the names that scripts of this kind have, `adam_beta1` or
`num_inference_steps`, one beside the other, so that tables of runs read alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shortcut_lightning.modules.trainable import FrozenDtype
from shortcut_lightning.ranges import (
    AtLeastOne,
    CountOrNone,
    NotNegative,
    Positive,
    ProperShare,
    Rank,
    SamplingSteps,
    ranged,
)


@ranged
@dataclass(frozen=True)
class AdapterShape:
    """The fine points of an adapter, beside its method and rank.

    Args:
        alpha: Its scale is alpha / rank; 0 stands for alpha = rank.
        dropout: Dropout inside a LoRA.
        dora: Decompose the denoiser's LoRA by weight (arXiv 2402.09353).
        convolutions: Adapters on the denoiser's convolutions as well.
        rank_pattern: Other ranks for layers whose names fit a pattern, such as
            `{'up_blocks\\.1\\..*': 16}`; the first that fits counts.
    """

    alpha: CountOrNone = 0
    dropout: ProperShare = 0.0
    dora: bool = False
    convolutions: bool = False
    rank_pattern: dict[str, Rank] = field(default_factory=dict)


@ranged
@dataclass(frozen=True)
class AdamSettings:
    """AdamW, which learns where no `--optimizer` is named.

    Args:
        beta1: First moment decay.
        beta2: Second moment decay.
        weight_decay: Decoupled weight decay; never applied to new tokens.
        epsilon: Added to the denominator.
        eight_bit: bitsandbytes' AdamW (extra `gpu`).
    """

    beta1: ProperShare = 0.9
    beta2: ProperShare = 0.999
    weight_decay: NotNegative = 1e-2
    epsilon: Positive = 1e-8
    eight_bit: bool = False


@ranged
@dataclass(frozen=True)
class Compute:
    """How the networks are held and run: memory and time, not numbers.

    Args:
        gradient_checkpointing: Recompute activations to save memory.
        checkpointed_blocks: Of the denoiser, the blocks that `gradient_checkpointing` is for: names
            or patterns of modules, such as `up_blocks` or `down_blocks\\.[01]`, with all that lies
            in them; all where empty. Fewer are faster and take more memory.
        frozen_dtype: How the denoiser and text encoders are stored where they do not learn (under
            LoRA both): `bf16` and `fp16` take half the memory, and compute in it. `nf4` stores the
            denoiser's linear layers in 4 bits (arXiv 2305.14314; bitsandbytes, extra `gpu`), for
            method `lora` alone, and the rest as `bf16`.
        cache_text_embeddings: Embed each prompt once; only while nothing of the text side learns.
        free_text_encoders: Keep text encoders on the CPU and bring them to the device for a new
            prompt only; needs `cache_text_embeddings`.
        free_autoencoder: Keep the autoencoder on the CPU and bring it to the device to encode or
            decode pictures only; with `data.cache_latents` that is before training and after it.
        compile_unet: `torch.compile` the denoiser.
    """

    gradient_checkpointing: bool = False
    checkpointed_blocks: tuple[str, ...] = ()
    frozen_dtype: FrozenDtype = "fp32"
    cache_text_embeddings: bool = False
    free_text_encoders: bool = False
    free_autoencoder: bool = False
    compile_unet: bool = False

    def __post_init__(self) -> None:
        if self.free_text_encoders and not self.cache_text_embeddings:
            raise ValueError(
                "model.compute.free_text_encoders brings a text encoder to the device for each new "
                "prompt: set model.compute.cache_text_embeddings to true, or it would come at "
                "every step."
            )
        if self.checkpointed_blocks and not self.gradient_checkpointing:
            raise ValueError(
                "model.compute.checkpointed_blocks chooses for gradient checkpointing, which is "
                "off: set model.compute.gradient_checkpointing to true."
            )


@ranged
@dataclass(frozen=True)
class Sampling:
    """How pictures are made in `test` and `predict`.

    Args:
        num_inference_steps: Sampling steps.
        guidance_scale: Classifier-free guidance; 1 is none. What a guidance-distilled model is
            told.
        true_cfg_scale: For distilled models, guidance by a second call for the negative prompt; 1
            is none.
        scheduler: diffusers scheduler class; empty takes the model's own.
    """

    num_inference_steps: SamplingSteps = 25
    guidance_scale: NotNegative = 7.5
    true_cfg_scale: AtLeastOne = 1.0
    scheduler: str = ""


# Name among the hyper-parameters -> key of the configuration below `model`.
KEYS: Mapping[str, str] = {
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "use_dora": "adapter.dora",
    "lora_convolutions": "adapter.convolutions",
    "rank_pattern": "adapter.rank_pattern",
    "adam_beta1": "adam.beta1",
    "adam_beta2": "adam.beta2",
    "adam_weight_decay": "adam.weight_decay",
    "adam_epsilon": "adam.epsilon",
    "use_8bit_adam": "adam.eight_bit",
    "gradient_checkpointing": "compute.gradient_checkpointing",
    "checkpointed_blocks": "compute.checkpointed_blocks",
    "frozen_dtype": "compute.frozen_dtype",
    "cache_text_embeddings": "compute.cache_text_embeddings",
    "free_text_encoders": "compute.free_text_encoders",
    "free_autoencoder": "compute.free_autoencoder",
    "compile_unet": "compute.compile_unet",
    "num_inference_steps": "sampling.num_inference_steps",
    "guidance_scale": "sampling.guidance_scale",
    "true_cfg_scale": "sampling.true_cfg_scale",
    "sampling_scheduler": "sampling.scheduler",
}


def flat(
    adapter: AdapterShape, adam: AdamSettings, compute: Compute, sampling: Sampling
) -> dict[str, Any]:
    """The settings one beside the other, by the names of `KEYS`."""
    groups = {"adapter": adapter, "adam": adam, "compute": compute, "sampling": sampling}
    found = {}
    for name, key in KEYS.items():
        group, _, leaf = key.partition(".")
        found[name] = getattr(groups[group], leaf)
    return found
