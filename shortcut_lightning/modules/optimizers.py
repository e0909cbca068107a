"""AdamW in fp32 or, with bitsandbytes, with 8-bit states."""

from typing import Any

import torch


def adam(
    groups: list[dict[str, Any]],
    *,
    betas: tuple[float, float],
    eps: float,
    eight_bit: bool,
    fused: bool,
) -> torch.optim.Optimizer:
    """`fused` runs one kernel instead of a dozen per tensor; Lightning's fp16 gradient scaler
    cannot clip together with it.

    Raises ValueError when 8-bit states are wanted and bitsandbytes is missing.
    """
    if not eight_bit:
        return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=fused)
    try:
        import bitsandbytes
    except ImportError as error:
        raise ValueError(
            "model.use_8bit_adam needs bitsandbytes: pip install 'shortcut-lightning[gpu]', "
            "or set it to false."
        ) from error
    return bitsandbytes.optim.AdamW8bit(groups, betas=betas, eps=eps)
