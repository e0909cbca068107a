"""What a file given as --ckpt_path has to be, looked at before anything is built."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shortcut_lightning import weights
from shortcut_lightning.cli.errors import UserError

# What Lightning writes and reads back without asking.
_ALWAYS = {"state_dict": dict, "pytorch-lightning_version": str}
_TO_GO_ON = {
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
# Without them training would begin anew, with the weights of a later step.
_PROGRESS = {"epoch_progress", "epoch_loop.batch_progress"}


def check_checkpoint(path: str, verb: str) -> None:
    """Raises UserError where the file is damaged, is no checkpoint of `fit` or needs unpickling,
    and NotFinite where it holds weights that are no numbers. `fit` goes on from it, the other verbs
    take its weights."""
    try:
        found, _ = weights.read(Path(path), "--ckpt_path")
    except OSError as error:
        raise UserError(f"--ckpt_path: cannot open '{path}': {error.strerror}") from error
    except ValueError as error:
        raise UserError(str(error)) from error
    wanted = _ALWAYS | (_TO_GO_ON if verb == "fit" else {})
    bad = [key for key, kind in wanted.items() if not isinstance(found.get(key), kind)]
    if bad:
        raise UserError(
            f"'{path}' is no checkpoint that `{verb}` can take (--ckpt_path): it has no proper "
            f"{', '.join(bad)}; give a .ckpt that `fit` wrote"
        )
    loop = found["loops"].get("fit_loop") if verb == "fit" else dict.fromkeys(_PROGRESS)
    if not isinstance(loop, dict) or not loop.keys() >= _PROGRESS:
        raise UserError(f"'{path}' does not say how far its training was (--ckpt_path)")
    _check_state(found["state_dict"], path)
    states = found["optimizer_states"] if verb == "fit" else []
    if not all(isinstance(each, dict) for each in states):
        raise UserError(f"'{path}' holds optimiser states that are none (--ckpt_path)")


def _check_state(state: dict[Any, Any], path: str) -> None:
    strange = [str(name) for name, each in state.items() if not hasattr(each, "is_floating_point")]
    if strange:
        raise UserError(
            f"'{path}' is no checkpoint of `fit` (--ckpt_path): its {weights.first(strange)} is "
            "no tensor"
        )
    weights.refuse_not_finite(state.items(), path, "--ckpt_path")


def check_optimizers(
    checkpoint: dict[str, Any], optimizers: list[Any], names: Sequence[str] = ()
) -> None:
    """Raises ValueError where a checkpoint lacks the state of an optimiser: going on from it would
    begin its averages and its step count anew. `names` are the classes of those that it is of, as
    far as it says."""
    states = checkpoint["optimizer_states"]
    if len(states) != len(optimizers):
        raise ValueError(
            f"The checkpoint holds the state of {len(states)} optimisers, this run has "
            f"{len(optimizers)}; it cannot go on from there (--ckpt_path). Its weights alone can "
            "be taken by `test` and `predict`."
        )
    for name, optimizer in zip(names, optimizers, strict=False):
        if name != type(optimizer).__name__:
            raise ValueError(
                f"The checkpoint was trained with {name}, this run has {type(optimizer).__name__}; "
                "it cannot go on from there (--ckpt_path). Give the --optimizer of that run."
            )
    for state, optimizer in zip(states, optimizers, strict=True):
        averages = any("betas" in group for group in optimizer.param_groups)
        if checkpoint["global_step"] and averages and not state.get("state"):
            raise ValueError(
                f"The checkpoint is of step {checkpoint['global_step']}, but holds none of the "
                f"averages of its {type(optimizer).__name__}; it cannot go on from there "
                "(--ckpt_path)."
            )
