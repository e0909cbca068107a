"""Which parameters learn, and how fast."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from shortcut_lightning.backbones import Backbone
from shortcut_lightning.backbones.base import is_adapter
from shortcut_lightning.modules.optimizers import NEVER_DECAYS

Method = Literal["full", "lora", "loha", "lokr"]
FrozenDtype = Literal["fp32", "bf16", "fp16", "nf4"]
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "nf4": torch.bfloat16,  # of what is not the denoiser's
}


def choose_trainable(
    backbone: Backbone,
    *,
    method: Method,
    train_unet: bool,
    train_text_encoder: bool,
    rank: int,
    alpha: int,
    dropout: float,
    dora: bool,
    new_tokens: Sequence[str],
    token_initializers: Sequence[str],
    convolutions: bool = False,
    ranks: Mapping[str, int] = {},
    alphas: Mapping[str, int] = {},
) -> None:
    """Freezes everything, then frees what is to learn.

    Raises ValueError when nothing is left to learn.
    """
    if not (train_unet or train_text_encoder or new_tokens):
        raise ValueError(
            "Nothing to train: set model.train_unet or model.train_text_encoder to true, or name "
            "model.new_tokens."
        )
    if token_initializers and len(token_initializers) != len(new_tokens):
        raise ValueError(
            f"{len(token_initializers)} model.token_initializers for {len(new_tokens)} "
            "model.new_tokens: give one for each, or none."
        )
    backbone.requires_grad_(False).eval()
    if method != "full" and (train_unet or train_text_encoder):
        backbone.add_lora(
            unet=train_unet,
            text_encoder=train_text_encoder,
            rank=rank,
            alpha=alpha,
            dropout=dropout,
            dora=dora,
            kind=method,
            convolutions=convolutions,
            ranks=ranks,
            alphas=alphas,
        )
    if new_tokens:
        backbone.add_tokens(new_tokens, token_initializers)
    if train_unet:
        _free([backbone.denoiser], method)
    if train_text_encoder:
        _free(backbone.learning_text_encoders, method)
    for parameter in backbone.parameters():
        if parameter.requires_grad:  # an adapter takes the dtype of what it is beside
            parameter.data = parameter.data.float()


def check_denoiser_alone(who: str, given: Mapping[str, Any]) -> None:
    """Raises ValueError where what `DreamBooth` is given has something else trained than the
    denoiser's own weights."""
    full, denoiser = given.get("method", "full") == "full", given.get("train_unet", True)
    if not (full and denoiser) or given.get("train_text_encoder"):
        raise ValueError(
            f"{who} trains weights of the denoiser alone: set model.method to 'full', "
            "model.train_unet to true and model.train_text_encoder to false."
        )


def shrink_frozen(backbone: Backbone, dtype: FrozenDtype) -> None:
    """Stores the weights of networks that do not learn themselves (adapters may) in `dtype`; the
    autoencoder keeps its own."""
    for network in (backbone.denoiser, *backbone.text_encoders):
        if any(p.requires_grad and not is_adapter(name) for name, p in network.named_parameters()):
            continue
        for parameter in network.parameters():
            # Weights of 4 bits lie as bytes.
            if not parameter.requires_grad and parameter.is_floating_point():
                parameter.data = parameter.data.to(DTYPES[dtype])


def trainable_groups(
    backbone: Backbone,
    *,
    unet_lr: float,
    text_lr: float,
    token_lr: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser; new tokens never decay, which their group says."""
    rows = backbone.token_rows
    row_ids = {id(row) for row in rows}
    text = [
        parameter
        for parameter in backbone.text_encoders.parameters()
        if parameter.requires_grad and id(parameter) not in row_ids
    ]
    unet = [parameter for parameter in backbone.denoiser.parameters() if parameter.requires_grad]
    groups = [
        {"params": unet, "lr": unet_lr, "weight_decay": weight_decay},
        {"params": text, "lr": text_lr, "weight_decay": weight_decay},
        {"params": rows, "lr": token_lr, "weight_decay": 0.0, NEVER_DECAYS: True},
    ]
    return [group for group in groups if group["params"]]


def _free(networks: Iterable[nn.Module], method: str) -> None:
    for network in networks:
        network.train()
        if method == "full":
            network.requires_grad_(True)
