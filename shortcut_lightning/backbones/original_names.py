"""What the original code of Stable Diffusion calls the layers that diffusers renamed.

Checkpoints in a single file use them, and LoRA files of kohya's scripts for XL.
"""

import re

from diffusers import UNet2DConditionModel

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def unet(network: UNet2DConditionModel, module: str) -> str:
    """The original name of a module of the denoiser.

    Original blocks are counted through, down- and upsamplers among them; an upsampler stands after
    the attention of its block, if that has any.
    """
    if module in _UNET:
        return _UNET[module]
    layers_per_block = network.config.layers_per_block
    per_block = layers_per_block + 1
    if match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", module):
        return f"input_blocks.{(int(match[1]) + 1) * per_block}.0.op"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", module):
        attends = hasattr(network.up_blocks[int(match[1])], "attentions")
        return f"output_blocks.{int(match[1]) * per_block + layers_per_block}.{1 + attends}.conv"
    match = re.fullmatch(
        r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.(resnets|attentions)\.(\d+)\.(.+)", module
    )
    if not match:
        return module
    block, kind, number, rest = match[1], match[2], int(match[3]), match[4]
    if kind == "resnets":
        rest = _RESNET.get(rest, rest)
    if block == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{rest}"
    place = int(block.partition(".")[2]) * per_block + number
    side, first = ("input", 1) if block.startswith("down") else ("output", 0)
    return f"{side}_blocks.{place + first}.{int(kind == 'attentions')}.{rest}"


def autoencoder(module: str, levels: int) -> str:
    """The original name of a module of an AutoencoderKL with so many resolutions."""
    name = re.sub(r"\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r".down.\1.block.\2.", module)
    name = re.sub(r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample.", name)
    name = re.sub(
        r"\.up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)\.",
        lambda found: (
            f".up.{levels - 1 - int(found[1])}."
            + (f"block.{found[3]}." if found[3] else "upsample.")
        ),
        name,
    )
    name = re.sub(
        r"\.mid_block\.resnets\.(\d+)\.", lambda found: f".mid.block_{int(found[1]) + 1}.", name
    )
    if match := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)", name):
        return f"{match[1]}.mid.attn_1.{_ATTENTION[match[2]]}"
    return name.replace(".conv_norm_out", ".norm_out").replace(".conv_shortcut", ".nin_shortcut")


def open_clip(module: str) -> str:
    """The name in open_clip of a module of a text encoder (as CLIPTextModel has it)."""
    if match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", module):
        return f"transformer.resblocks.{match[1]}.{_OPEN_CLIP.get(match[2], match[2])}"
    return {"embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final"}.get(
        module, module
    )
