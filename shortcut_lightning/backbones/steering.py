"""Safe guidance in any diffusers pipeline: its denoiser is asked a third question at each step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shortcut_lightning.backbones.base import Conditioning
from shortcut_lightning.safe_guidance import SafeGuidance, SafeSteps

# What the families call the text that their denoisers are given.
HIDDEN, POOLED = "encoder_hidden_states", ("pooled_projections", "text_embeds")


@contextmanager
def steered(
    denoiser: nn.Module, setting: SafeGuidance, unwanted: Conditioning, steps: int, calls: int
) -> Iterator[None]:
    """A pipeline that samples B pictures inside, in `steps` that each ask the denoiser `calls`
    times, is led away from `unwanted`, B rows.

    It hands the denoiser 2 B rows, those of the empty prompts first; B more are added, and its own
    classifier-free guidance does the rest. Raises ValueError for a pipeline without such guidance.
    """
    rows, safe = 2 * len(unwanted), SafeSteps(setting, steps, calls)

    def asked(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: asked(each, key) for key, each in value.items()}
        if not (isinstance(value, Tensor) and value.ndim and len(value) == rows):
            return value
        third = value[rows // 2 :]
        if name == HIDDEN:
            third = unwanted.hidden.to(value)
        elif name in POOLED and unwanted.pooled is not None:
            third = unwanted.pooled.to(value)
        return torch.cat([value, third])

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        if len(given) != rows:
            raise ValueError(
                "Safe guidance bends classifier-free guidance, and there is none at this "
                "guidance_scale; set model.sampling.guidance_scale above 1 or "
                "data.erasing.safety to null."
            )
        return tuple(asked(each) for each in args), asked(kwargs)

    def after(_: nn.Module, args: Any, kwargs: Any, output: Any) -> tuple[Tensor]:
        without, wanted, third = output[0].float().chunk(3)
        bent = safe(without, wanted, third)
        return (torch.cat([without, bent]).to(output[0].dtype),)

    hooks = [
        denoiser.register_forward_pre_hook(before, with_kwargs=True),
        denoiser.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
