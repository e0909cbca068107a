"""What `gpu.py` measures with: seconds of a step, counted operations, memory, a card's ceiling."""

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

WARM = 2  # steps that are not timed
MOST = 60  # steps that are


def why(error: Exception) -> str:
    """An error in a line, for a row."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


class Skipped(Exception):
    """A measurement that cannot be made here; the message says why."""


@dataclass
class Way:
    """One way of doing the same: ours, or the peer's loop."""

    seconds: float  # of a unit: a step, a picture
    timed: int  # units that were timed
    peak_mib: float


@dataclass
class Row:
    """A measurement as it stands in the table."""

    name: str
    state: str = "no time left"  # or measured, skipped, failed
    reason: str = ""
    unit: str = "step"
    ours: Way | None = None
    plain: Way | None = None
    against: str = "the peer's loop"
    teraflops: float | None = None  # counted operations of a unit, 10^12
    ceiling: float | None = None  # the card's, 10^12 a second
    note: str = ""
    took: float = 0.0

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the other way."""
        if not self.ours or not self.plain:
            return None
        return self.plain.seconds / self.ours.seconds

    @property
    def share(self) -> float | None:
        """Of the ceiling of bf16 matrix products."""
        if not self.ours or not self.teraflops or not self.ceiling:
            return None
        return self.teraflops / self.ours.seconds / self.ceiling

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ratio": self.ratio, "share_of_ceiling": self.share}


@dataclass
class Bench:
    """Where and how long."""

    device: torch.device
    tiny: bool
    deadline: float  # of time.monotonic
    slice_s: float = 5.0  # seconds for one way of one measurement
    ceiling: float | None = None
    lost: bool = False  # whether the card has stopped answering this process
    kept: dict[str, Way] = field(default_factory=dict)  # of ours, for variants to be held against

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    @property
    def autocast(self) -> torch.autocast:
        """bfloat16."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def timed(self, step: Callable[[], Any], units: int = 1, warm: int = WARM) -> Way:
        """Calls `step`, which does so many units, until this way's time is over."""
        self.reset_peak()
        for _ in range(warm):
            step()
        seconds: list[float] = []
        end = time.perf_counter() + min(self.slice_s, max(self.left, 0.0))
        while len(seconds) < MOST and (not seconds or time.perf_counter() < end):
            self.synchronize()
            start = time.perf_counter()
            step()
            self.synchronize()
            seconds.append((time.perf_counter() - start) / units)
        return self.way(seconds, units)

    def way(self, seconds: list[float], units: int = 1) -> Way:
        """The median of what was timed, with the peak of memory since the last reset."""
        return Way(float(np.median(seconds)), len(seconds) * units, self.peak_mib())

    def teraflops(self, step: Callable[[], Any]) -> float:
        """10^12 operations of matrix products, convolutions and attention in one call."""
        with FlopCounterMode(display=False) as counter:
            step()
        return float(counter.get_total_flops()) / 1e12

    def synchronize(self) -> None:
        """Waits for the card."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def may_compile(self, least_s: float) -> None:
        """Raises Skipped on a CPU, and where less time is left than it takes."""
        if self.device.type == "cpu":
            raise Skipped("compiling for a CPU takes minutes and says nothing about a card")
        if self.left < least_s:
            raise Skipped(f"needs about {least_s:.0f} seconds, {max(self.left, 0):.0f} are left")

    def clear(self) -> None:
        """Gives back what nobody holds any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def reset_peak(self) -> None:
        """The next peak begins here."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # the peak since the process began, then
            return

    def peak_mib(self) -> float:
        """Of the card, or of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


def ceiling(bench: Bench) -> float:
    """10^12 operations a second of the best bf16 matrix product."""
    sides = (256,) if bench.tiny else (4096, 8192, 12288)
    best = 0.0
    for side in sides:
        a, b = (
            torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2)
        )
        way = bench.timed(lambda a=a, b=b: [a @ b for _ in range(8)], units=8)  # type: ignore[misc]
        best = max(best, 2 * side**3 / way.seconds / 1e12)
    return best
