"""Which adapters are not for this program, or not for this model."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from shortcut_lightning import weights

if TYPE_CHECKING:
    from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

KEY = "model.lora"
# What cannot be loaded here, by its keys.
_KINDS = {
    "OFT (orthogonal)": r"\.b?oft_|\.oft\.",
    "GLoRA": r"\.[ab][12]\.weight$",
    "(IA)^3": r"ia3|\.on_input$",
    "LyCORIS of whole weight differences": r"\.diff(_b)?$",
    "LyCORIS of norms": r"\.[wb]_norm$",
    "AdaLoRA": r"\.lora_E",
    "VeRA": r"vera_lambda",
    "ControlNet-LLLite": r"lllite",
    "a LoRA that brings words along (bundle_emb)": r"^bundle_emb",
}
# What is for no U-Net.
_OTHERS = {
    "a LoRA for FLUX": r"double_blocks|single_blocks|single_transformer_blocks",
    "a LoRA for Stable Diffusion 3": r"joint_blocks|attn[._]add_[qkv]_proj",
    "a LoRA for a diffusion transformer": r"^(base_model\.model\.)?(lora_)?transformer[._]",
    "a LoRA of AnimateDiff": r"motion_modules|temporal_transformer",
}
_TEXT_WIDTHS = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    2048: "Stable Diffusion XL",
}


def refuse_kinds(backbone: "StableDiffusion", tensors: Mapping[str, Tensor], file: str) -> None:
    """Raises ValueError for what is no plain low-rank pair, or for another architecture."""
    kinds = _KINDS | (_OTHERS if backbone.part == "unet" else {})
    for kind, pattern in kinds.items():
        found = [key for key in tensors if re.search(pattern, key)]
        if found:
            raise ValueError(
                f"'{file}' is {kind}, at {weights.first(found)}; LoRA, DoRA, LoHa and LoKr "
                f"for this model's family are known here ({KEY})."
            )


def refuse_other_models(
    backbone: "StableDiffusion", downs: Mapping[str, Tensor], file: str
) -> None:
    """Names the family a LoRA is for where that shows: by the width of the text it reads, or by the
    text encoders it changes. `downs` are the matrices next to the input, by layer."""
    if backbone.part != "unet":  # whose layers are called otherwise in each family
        return
    own = int(backbone.unet.config.cross_attention_dim)
    two_encoders = "text_encoder_2" in backbone.networks
    its = {
        down.shape[1]
        for stem, down in downs.items()
        if re.search(r"attn2[._](processor[._])?to_[kv]$", stem)
    } - {own}
    second = any(re.match(r"(lora_te2_|text_encoder_2\.)", stem) for stem in downs)
    only = any(stem.startswith("lora_te_") for stem in downs)
    if its:
        width = min(its)
        name = _TEXT_WIDTHS.get(width, "another model")
        meant = f"for {name} (it reads text {width} wide)"
    elif second and not two_encoders:
        meant = "for Stable Diffusion XL (it changes a second text encoder)"
    elif only and two_encoders:
        meant = "for Stable Diffusion 1.x or 2.x (its text encoder is the only one)"
    else:
        return
    mine = "Stable Diffusion XL" if two_encoders else _TEXT_WIDTHS.get(own, "")
    mine = f"this model is {mine} ({own} wide)" if mine else f"this model's text is {own} wide"
    raise ValueError(f"The LoRA '{file}' is {meant}; {mine} ({KEY}).")
