"""Which model a single-file checkpoint is, by the names and shapes of its tensors."""

import re
from collections.abc import Mapping

from torch import Tensor

from shortcut_lightning.backbones.original_configs import Kind
from shortcut_lightning.weights import WeightsError, first

UNET = "model.diffusion_model."
VAE = "first_stage_model."
# Where the text encoders lie, the one in OpenAI's layout or the one in open_clip's.
TEXT: dict[Kind, list[str]] = {
    "1.x": ["cond_stage_model.transformer."],
    "2.x": ["cond_stage_model.model."],
    "XL": ["conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."],
}
_KNOWN = "Stable Diffusion 1.x, 2.x and XL are known"
# Files of other models and programs, by a tensor that only they have.
_OTHERS = {
    "a FLUX model": r"double_blocks\.",
    "a Stable Diffusion 3 model": r"joint_blocks\.",
    "a checkpoint of `fit`, to be given as --ckpt_path": r"^backbone\.",
    "a LoRA, to be given as model.lora": r"lora_(up|down|A|B)\.|^lora_(unet|te)|lokr_|hada_",
    "a ControlNet": r"^control_model\.|controlnet_",
    "the refiner of Stable Diffusion XL": r"^conditioner\.embedders\.0\.model\.",
    "an autoencoder alone": r"^(encoder|first_stage_model\.encoder)\.conv_in\.",
    "one part of a diffusers folder": r"^(down_blocks|text_model|encoder\.layers)\.",
}
_CHANNELS = {5: "a depth model", 7: "an upscaler", 8: "an editing model", 9: "an inpainting model"}
# Beside the networks: averages, schedules, marks, and what a published text encoder has unused.
_BESIDE = re.compile(
    r"^model_ema\.|^denoiser\.|^first_stage_model\.loss\.|^(v_pred|ztsnr|edm_mean|edm_std)$"
    r"|^(sqrt_|log_|posterior_|alphas_|betas|logvar|lvlb_|scale_factor|model_ema)"
    r"|^(cond_stage_model|conditioner)\..*(logit_scale|text_projection(\.weight)?|attn_mask)$"
    r"|^(cond_stage_model|conditioner)\..*(position_ids|\.visual\..+)$"
    r"|^cond_stage_model\.model\.transformer\.resblocks\.23\."
)


def kind_of(tensors: Mapping[str, Tensor], source: str, key: str) -> Kind:
    """1.x, 2.x or XL.

    Raises WeightsError that names what else the file is, or the part that it lacks.
    """
    names = list(tensors)
    entry = tensors.get(f"{UNET}input_blocks.0.0.weight")
    for other, pattern in _OTHERS.items():
        alone = other.startswith(("an autoencoder", "one part")) and entry is not None
        if not alone and any(re.search(pattern, name) for name in names):
            raise WeightsError(f"'{source}' is {other}; {_KNOWN} ({key}).")
    if entry is None:
        more = " (a diffusion transformer)" if any(UNET in name for name in names) else ""
        raise WeightsError(
            f"'{source}' is no Stable Diffusion checkpoint{more}: it has {first(names)}, and "
            f"nothing under {UNET}input_blocks; {_KNOWN} ({key})."
        )
    if (channels := entry.shape[1]) != 4:
        what = _CHANNELS.get(channels, f"a model of {channels} channels")
        raise WeightsError(f"'{source}' is {what}; text-to-image models are known ({key}).")
    for kind, prefixes in TEXT.items():
        if all(any(name.startswith(each) for name in names) for each in prefixes):
            return kind
    raise WeightsError(
        f"'{source}' has a denoiser, but no text encoders beside it as Stable Diffusion 1.x, 2.x or"
        f" XL have; give a whole checkpoint, or a diffusers folder ({key})."
    )


def is_beside(name: str) -> bool:
    """Whether a tensor of the file belongs to none of the networks."""
    return bool(_BESIDE.search(name))
