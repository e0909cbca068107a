"""AdamW in fp32 or, with bitsandbytes, with 8-bit states; any other optimiser or schedule by class.

What a user names replaces AdamW alone: the rates stay those of the module, one for each group of
parameters, and so does the rule that new words never decay.
"""

import inspect
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

log = logging.getLogger(__name__)

Group = dict[str, Any]
NEVER_DECAYS = "never_decays"  # marks a group whose decay no optimiser chooses
_REFUSALS = (ArithmeticError, AssertionError, ImportError, RuntimeError, TypeError, ValueError)


class Named(NamedTuple):
    """A class that the user named, and what it is given beside parameters and rates."""

    cls: Callable[..., Any]
    arguments: Mapping[str, Any]

    def __call__(self, first: Any, key: str, **more: Any) -> Any:
        """The object. Raises ValueError, with the key of the configuration, for what it refuses,
        and for settings that are no numbers, which many take."""
        for name, value in self.arguments.items():
            if any(
                each != each for each in (value if isinstance(value, list | tuple) else [value])
            ):
                raise ValueError(f"{key}.{name} is {value}; it must be a number.")
        try:
            return self.cls(first, **{**self.arguments, **more})
        except _REFUSALS as error:
            raise ValueError(self._refusal(error, key)) from error

    def tried(self, optimizer: Optimizer) -> None:
        """A first step of a schedule, for what only shows there. Raises ValueError as above."""
        schedule = self(optimizer, "lr_scheduler")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about an optimiser that took no step
                schedule.step(*[0.0] * isinstance(schedule, ReduceLROnPlateau))
        except _REFUSALS as error:
            raise ValueError(self._refusal(error, "lr_scheduler")) from error
        refuse_rates([optimizer], self.name)

    def _refusal(self, error: Exception, key: str) -> str:
        said = " ".join(str(error).split()) or type(error).__name__
        return f"{key}: {self.name} refuses its settings: {said}"

    @property
    def name(self) -> str:
        return str(getattr(self.cls, "__name__", self.cls))


def refuse_rates(optimizers: Sequence[Optimizer], schedule: str) -> None:
    """Raises ValueError where a schedule has set a rate below 0, which trains upwards, or to what
    is no number."""
    rates = [float(group["lr"]) for each in optimizers for group in each.param_groups]
    if wrong := [rate for rate in rates if not 0 <= rate < float("inf")]:
        raise ValueError(
            f"lr_scheduler: {schedule} sets the rate to {wrong[0]:g}; it must be at least 0."
        )


def adam(
    groups: list[Group],
    *,
    betas: tuple[float, float],
    eps: float,
    eight_bit: bool,
    fused: bool,
) -> Optimizer:
    """`fused` runs one kernel instead of a dozen per tensor; Lightning's fp16 gradient scaler
    cannot clip together with it.

    Raises ValueError when 8-bit states are wanted and bitsandbytes is missing.
    """
    groups = [_without(each, NEVER_DECAYS) for each in groups]
    if not eight_bit:
        return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=fused)
    try:
        import bitsandbytes
    except ImportError as error:
        raise ValueError(
            "model.adam.eight_bit needs bitsandbytes: pip install 'shortcut-lightning[gpu]', "
            "or set it to false."
        ) from error
    return bitsandbytes.optim.AdamW8bit(groups, betas=betas, eps=eps)


def named(groups: Sequence[Group], wanted: Named) -> Optimizer:
    """The optimiser that the user named, on groups of `trainable_groups`: their rates are kept, and
    the decay of new words is 0; the others decay as the optimiser is told.

    Raises ValueError for settings that the optimiser refuses, and for those with which it would
    not follow the rates.
    """
    if wanted.arguments.get("relative_step"):
        raise ValueError(
            f"optimizer.relative_step of {wanted.name} finds the rate itself and ignores "
            "model.learning_rate: give --optimizer.relative_step false."
        )
    takes_decay = "weight_decay" in inspect.signature(wanted.cls).parameters
    own = [
        _without(
            each, NEVER_DECAYS, *["weight_decay"] * (not takes_decay or NEVER_DECAYS not in each)
        )
        for each in groups
    ]
    # The rate of the first group for who checks it; each group has its own.
    optimizer: Optimizer = wanted(own, "optimizer", lr=own[0]["lr"])
    if "d0" in optimizer.defaults:  # D-Adaptation and Prodigy: one estimate for all groups
        _check_multiplier({float(each["lr"]) for each in groups}, wanted.name)
    return optimizer


def _without(group: Group, *keys: str) -> Group:
    return {key: value for key, value in group.items() if key not in keys}


def _check_multiplier(rates: set[float], name: str) -> None:
    if len(rates) > 1:
        raise ValueError(
            f"optimizer: {name} finds one rate for all that learns, but model.learning_rate, "
            "text_encoder_lr and token_lr differ: leave the last two at 0."
        )
    if max(rates) < 0.01:
        log.warning(
            "model.learning_rate is %g, and %s multiplies the rate that it finds itself by it: it "
            "will hardly learn. Its authors give 1.",
            max(rates),
            name,
        )


def scheduled(optimizer: Optimizer, wanted: Named) -> dict[str, Any]:
    """The schedule that the user named, as Lightning takes it: a step of it after each step of the
    optimiser, or after each validation where it looks at a metric.

    Raises ValueError for settings that it refuses.
    """
    schedule = wanted(optimizer, "lr_scheduler")
    if isinstance(schedule, ReduceLROnPlateau):
        return {"scheduler": schedule, "monitor": getattr(schedule, "monitor", "val/loss")}
    return {"scheduler": schedule, "interval": "step"}
