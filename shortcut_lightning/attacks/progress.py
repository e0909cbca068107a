"""Where a running attack stands, on disk: an interrupted one goes on and ends in the same pixels.

An attack is one loop or several, one after the other, between pieces of work that are cheap and
made again. Every now and then, and where the program is told to end, a loop writes what its next
step depends on: the position, the state of the only source of chance, and every object named to it.
On another kind of accelerator, or with kernels that are not deterministic, what follows may differ
in the last bits, as two whole runs do.
"""

import time
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from shortcut_lightning import stopping
from shortcut_lightning.files.atomic import atomic

T = TypeVar("T")

SHARE = 20  # saving may take about one part in so many of the time


class Stateful(Protocol):
    """What a loop changes, as torch's optimisers and modules have it."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class Kept(Generic[T]):
    """A value that a loop replaces: a tensor, a number, or lists of them."""

    def __init__(self, value: T) -> None:
        self.value = value

    def state_dict(self) -> dict[str, T]:
        """See `Stateful`."""
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, T]) -> None:
        """See `Stateful`."""
        self.value = state_dict["value"]


class Progress:
    """The loops of one call of an attack.

    Args:
        folder: Where they write; without one, nothing is written. It belongs to one call with one
            set of arguments: whoever names it keys it by them, and deletes it afterwards.
        seconds: How often; more seldom where writing takes long.
    """

    def __init__(self, folder: Path | None = None, seconds: float = 60.0) -> None:
        self.folder = folder
        self.seconds = seconds
        self._numbers = count()
        self._due = time.monotonic() + seconds

    def loop(self, total: int, generator: torch.Generator, *states: Stateful) -> Iterator[int]:
        """`range(total)`, or what is left of it: then `generator` and `states` are first put back
        to what they were. They must be all that a step changes and a later one reads."""
        if self.folder is None:
            yield from range(total)
            return
        path = self.folder / f"{next(self._numbers)}.pt"
        for step in range(_restore(path, generator, states), total):
            stopping.hold()  # or a signal would lose what was done since the last time
            try:
                yield step
            finally:
                stopping.release()
            if time.monotonic() >= self._due or stopping.asked():
                start = time.monotonic()
                _save(path, step + 1, generator, states)
                end = time.monotonic()
                self._due = end + max(self.seconds, SHARE * (end - start))
            stopping.end_if_asked()


def _save(path: Path, step: int, generator: torch.Generator, states: tuple[Stateful, ...]) -> None:
    """A full disk costs the chance to go on, not the attack."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [state.state_dict() for state in states]
        with atomic(path) as half:
            torch.save({"step": step, "generator": generator.get_state(), "kept": kept}, half)
    except (OSError, RuntimeError) as error:
        warnings.warn(f"Where the attack stands cannot be kept in {path} ({error}).", stacklevel=2)


def _restore(path: Path, generator: torch.Generator, states: tuple[Stateful, ...]) -> int:
    """The step to go on with; 0 where there is nothing to go on from."""
    if not path.exists():
        return 0
    try:
        saved = torch.load(path, weights_only=True)
    except Exception as error:  # torch.load raises a new kind for each way a file can be damaged
        warnings.warn(f"{path} is damaged ({error}); this part starts again.", stacklevel=2)
        return 0
    generator.set_state(saved["generator"])
    for state, kept in zip(states, saved["kept"], strict=True):
        state.load_state_dict(kept)
    return int(saved["step"])
