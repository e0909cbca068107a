"""Weights as they lie in files: read without running anything, whole, and made of numbers.

Libraries fill what a file lacks with random numbers and pass over what it has too much of; here
both are errors that name the tensors.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shortcut_lightning.files.reading import read_text, refuse_pipe, refuse_pipes
from shortcut_lightning.finite import NotFinite

# Buffers that older files carry and today's networks compute themselves.
_COMPUTED = re.compile(
    r"(^|\.)(position_ids|relative_position_index|attn_mask|num_batches_tracked)$"
)


class WeightsError(ValueError):
    """A file of weights that cannot be taken; one line that says which, why, and by which key it
    was named."""


class NoNumbers(WeightsError, NotFinite):
    """A file of weights that are NaN or infinite."""


def read(path: Path, key: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A `.safetensors` file, or one of `torch.save`, as (names -> tensors, metadata).

    The second kind may nest and hold numbers and text; whatever would have to be unpickled beyond
    that is refused, and never run. `key` is the setting that named the file.

    Raises WeightsError where the file cannot be read so, OSError where it cannot be opened.
    """
    refuse_pipe(path)
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise WeightsError(f"'{path}' is empty; give a file with weights ({key}).")
    if head[8:] == b"{":
        return _safetensors(path, key)
    try:
        # Mapped, a checkpoint of many gigabytes is looked at without being read.
        mapped = head[:2] == b"PK"
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a new kind for each way in which a file can be damaged
        raise WeightsError(f"'{path}' {_why_not(str(error))} ({key}).") from error
    if not isinstance(found, dict):
        raise WeightsError(
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
        raise WeightsError(
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


def is_finite(tensor: Any) -> bool:
    """Whether all are numbers; reads them once, as a sum. True of what is no tensor."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.is_meta:
        return True
    if bool(tensor.sum(dtype=torch.float32).isfinite()):
        return True
    return bool(tensor.isfinite().all())  # large numbers may have overflown the sum


def refuse_not_finite(tensors: Iterable[tuple[str, Any]], source: str, key: str) -> None:
    """Raises NoNumbers that names the tensors with NaN or infinity among `tensors`."""
    bad = [name for name, tensor in tensors if not is_finite(tensor)]
    if bad:
        raise NoNumbers(
            f"'{source}' has weights that are no numbers (NaN or infinite) in {first(bad)}; the "
            f"file is broken ({key})."
        )


def refuse_whole_numbers(tensors: Iterable[tuple[str, Any]], source: str, key: str) -> None:
    """Raises WeightsError that names the `tensors` of another kind than floating point: what is
    learned is never whole, and what was packed into whole numbers is not to be read as they are."""
    bad = {name: each.dtype for name, each in tensors if not each.is_floating_point()}
    if bad:
        kinds = ", ".join(sorted({str(kind).removeprefix("torch.") for kind in bad.values()}))
        raise WeightsError(
            f"'{source}' has weights of {kinds} in {first(list(bad))}; floating-point numbers are "
            f"expected ({key})."
        )


def refuse_parts(
    missing: Iterable[str], unexpected: Iterable[str], source: str, part: str, key: str
) -> None:
    """Raises WeightsError that names the tensors a file lacks, or has too much of."""
    missing = sorted(name for name in missing if not _COMPUTED.search(name))
    unexpected = sorted(name for name in unexpected if not _COMPUTED.search(name))
    if missing:
        raise WeightsError(
            f"'{source}' is incomplete: {part} lacks {first(missing)}; they would be random "
            f"numbers ({key})."
        )
    if unexpected:
        raise WeightsError(
            f"'{source}' is of another architecture than its configuration says: {part} does not "
            f"know {first(unexpected)} ({key})."
        )


def load(
    kind: Any,
    source: str | Path,
    key: str,
    part: str = "the model",
    arguments: Mapping[str, Any] = {},
    unused: str = "",
    strict: bool = False,
) -> Any:
    """A network of diffusers or transformers, whole and of numbers.

    Args:
        kind: Its class, or one of the libraries' automatic ones.
        source: Folder or hub id.
        key: The setting that named it.
        part: What it is called in messages.
        arguments: Of `from_pretrained`.
        unused: Pattern of tensors that may be missing because nothing here asks for them.
        strict: Whether the files must hold nothing else; otherwise heads for other tasks, which
            stand beside the network, may be in them.

    Raises WeightsError that names what is missing, unknown, of another shape or not finite, and
    ValueError or OSError for what cannot be read at all.
    """
    refuse_pipes(Path(source))
    is_diffusers = kind.__module__.startswith("diffusers")
    # By the names of all that does not fit, where diffusers stops at the first by itself.
    more = {} if is_diffusers else {"ignore_mismatched_sizes": True}
    with one_line(), _silent():
        network, info = kind.from_pretrained(
            source, output_loading_info=True, **more, **dict(arguments)
        )
    misshapen = sorted(str(each[0]) for each in info["mismatched_keys"])
    if misshapen:
        raise WeightsError(
            f"'{source}' does not fit its configuration: {part} has other shapes in "
            f"{first(misshapen)} ({key})."
        )
    missing = [each for each in info["missing_keys"] if not (unused and re.search(unused, each))]
    own = {name for name, _ in network.named_modules()}
    inside = [each for each in info["unexpected_keys"] if strict or each.partition(".")[0] in own]
    refuse_parts(missing, inside, str(source), part, key)
    refuse_not_finite(network.named_parameters(), f"{source}", key)
    return network


@contextmanager
def one_line() -> Iterator[None]:
    """Where libraries read files that may be damaged, for each way of which they raise a kind of
    their own: OSError and ValueError pass, the others become a ValueError of one line."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise ValueError(f"{type(error).__name__}: {lines[0]}") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Without the libraries' tables of what does not fit: it becomes one line."""
    # A filter, as transformers takes a raised level for a wish to hear of tensor parallelism.
    names = ("transformers.modeling_utils", "diffusers.models.modeling_utils")

    def nothing(record: logging.LogRecord) -> bool:
        return False

    for name in names:
        logging.getLogger(name).addFilter(nothing)
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).removeFilter(nothing)


def fill(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    part: str,
    key: str,
    assign: bool = False,
) -> None:
    """Loads all of `tensors` into all of `network`; with `assign` they become its own, so that a
    network that was built without memory gets some.

    Raises WeightsError that names what is missing, unknown, of another shape or not finite.
    """
    own = network.state_dict()
    refuse_parts(own.keys() - tensors.keys(), tensors.keys() - own.keys(), source, part, key)
    for name, tensor in tensors.items():
        if name in own and own[name].shape != tensor.shape:
            raise WeightsError(
                f"'{source}' does not fit its configuration: {name} of {part} is "
                f"{_shape(tensor)}, expected {_shape(own[name])} ({key})."
            )
    refuse_not_finite(tensors.items(), source, key)
    network.load_state_dict(
        {n: each for n, each in tensors.items() if n in own}, strict=False, assign=assign
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def first(names: Sequence[str], limit: int = 2) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def build(kind: Any, folder: Path, key: str) -> Any:
    """A network of the package's own from `config.json` (its arguments) and `model.safetensors`.

    Raises WeightsError where either is missing, damaged or does not fit the other.
    """
    try:
        network = kind(**json.loads(read_text(folder / "config.json")))
    except (OSError, TypeError, ValueError) as error:
        raise WeightsError(
            f"'{folder / 'config.json'}' does not describe a {kind.__name__} ({error}) ({key})."
        ) from error
    file = folder / "model.safetensors"
    if not file.is_file():
        raise WeightsError(f"There is no '{file}' ({key}).")
    fill(network, tensors_of(read(file, key)[0]), str(file), f"the {kind.__name__}", key)
    return network
