"""Weights as they lie in files: read without running anything, whole, and made of numbers.

Libraries fill what a file lacks with random numbers and pass over what it has too much of; here
both are errors that name the tensors.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Buffers that older files carry and today's networks compute themselves.
_COMPUTED = re.compile(
    r"(^|\.)(position_ids|relative_position_index|attn_mask|num_batches_tracked)$"
)


def read(path: Path, key: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A `.safetensors` file, or one of `torch.save`, as (names -> tensors, metadata).

    The second kind may nest and hold numbers and text; whatever would have to be unpickled beyond
    that is refused, and never run. `key` is the setting that named the file.

    Raises ValueError where the file cannot be read so, OSError where it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise ValueError(f"'{path}' is empty; give a file with weights ({key}).")
    if head[8:] == b"{":
        return _safetensors(path, key)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a new kind for each way in which a file can be damaged
        raise ValueError(f"'{path}' {_why_not(str(error))} ({key}).") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"'{path}' holds a {type(found).__name__}; weights are names with tensors ({key})."
        )
    return found, {}


def _safetensors(path: Path, key: str) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {
                name: file.get_tensor(name) for name in list(file.keys())
            }, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"'{path}' is a damaged or truncated safetensors file ({str(error)[:80]}) ({key})."
        ) from error


def _why_not(reason: str) -> str:
    """What keeps torch from reading a file as weights, after the file's name."""
    if found := re.search(r"GLOBAL ([\w.]+)", reason):
        return (
            f"holds more than weights ('{found[1]}'), which would be run to be read; this is "
            "refused. Give a .safetensors file, or convert it where you trust it"
        )
    if "Weights only load failed" in reason and "magic number" not in reason:
        return "is no file of weights, or holds more than weights, which is never unpickled"
    return "is damaged, truncated, or no file of weights"


def tensors_of(found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors at the top of what was read; counters and settings beside them are left."""
    return {str(name): each for name, each in found.items() if isinstance(each, Tensor)}


def is_finite(tensor: Tensor) -> bool:
    """Whether all are numbers; reads them once, as a sum."""
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    if bool(tensor.sum(dtype=torch.float32).isfinite()):
        return True
    return bool(tensor.isfinite().all())  # large numbers may have overflown the sum


def refuse_not_finite(tensors: Iterable[tuple[str, Tensor]], source: str, key: str) -> None:
    """Raises ValueError that names the tensors with NaN or infinity among `tensors`."""
    bad = [name for name, tensor in tensors if not is_finite(tensor.detach())]
    if bad:
        raise ValueError(
            f"'{source}' has weights that are no numbers (NaN or infinite) in {first(bad)}; the "
            f"file is broken ({key})."
        )


def refuse_parts(
    missing: Iterable[str], unexpected: Iterable[str], source: str, part: str, key: str
) -> None:
    """Raises ValueError that names the tensors a file lacks, or has too much of."""
    missing = sorted(name for name in missing if not _COMPUTED.search(name))
    unexpected = sorted(name for name in unexpected if not _COMPUTED.search(name))
    if missing:
        raise ValueError(
            f"'{source}' is incomplete: {part} lacks {first(missing)}; they would be random "
            f"numbers ({key})."
        )
    if unexpected:
        raise ValueError(
            f"'{source}' is of another architecture than its configuration says: {part} does not "
            f"know {first(unexpected)} ({key})."
        )


def refuse_loaded(
    network: nn.Module, info: Mapping[str, Any], source: str, part: str, key: str
) -> None:
    """Raises ValueError where a library's `output_loading_info` says that it did not load what the
    files hold, or where they hold NaN."""
    misshapen = sorted(str(each[0]) for each in info.get("mismatched_keys", ()))
    if misshapen:
        raise ValueError(
            f"'{source}' does not fit its configuration: in {part} other shapes in "
            f"{first(misshapen)} ({key})."
        )
    refuse_parts(info["missing_keys"], info["unexpected_keys"], source, part, key)
    refuse_not_finite(network.named_parameters(), f"{source}", key)


def fill(
    network: nn.Module, tensors: Mapping[str, Tensor], source: str, part: str, key: str
) -> None:
    """Loads all of `tensors` into all of `network`.

    Raises ValueError that names what is missing, unknown, of another shape or not finite.
    """
    own = network.state_dict()
    refuse_parts(own.keys() - tensors.keys(), tensors.keys() - own.keys(), source, part, key)
    for name, tensor in tensors.items():
        if name in own and own[name].shape != tensor.shape:
            raise ValueError(
                f"'{source}' does not fit its configuration: {name} of {part} is "
                f"{_shape(tensor)}, expected {_shape(own[name])} ({key})."
            )
    refuse_not_finite(tensors.items(), source, key)
    network.load_state_dict({n: each for n, each in tensors.items() if n in own}, strict=False)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def first(names: Sequence[str], limit: int = 2) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
