"""A scale with round numbers on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10


@dataclass(frozen=True)
class Axis:
    """A range of numbers, and how to place and write them on it."""

    low: float
    high: float

    @staticmethod
    def around(values: Sequence[float], air: float = 0.1) -> "Axis":
        """The range of the values plus `air` of it at both ends; zero is not crossed for it."""
        finite = [value for value in values if isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=1.0)
        if low == high:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        space = air * (high - low)
        below = low - space if low < 0 else max(low - space, 0.0)
        return Axis(below, high + space)

    @property
    def step(self) -> float:
        """Distance of the ticks: 1, 2 or 5 times a power of ten, so that two to five ticks fit."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** floor(log10(rough))
        return next(power * m for m in (1, 2, 5, 10) if power * m >= rough)

    @property
    def ticks(self) -> list[float]:
        """Multiples of `step` inside the range."""
        first, last = ceil(self.low / self.step - 1e-9), floor(self.high / self.step + 1e-9)
        return [i * self.step for i in range(first, last + 1)]

    def percent(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 100 at the high one; values outside are cut."""
        return 100 * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def round(self, value: float) -> str:
        """A tick as text."""
        return _text(value, -floor(log10(self.step) + 1e-9))

    def exact(self, value: float) -> str:
        """A value as text: a tick's digits and one or two more, so that neighbours differ."""
        return _text(value, 2 - floor(log10(self.high - self.low)))


def number(value: float) -> str:
    """A quantity as text with about three significant digits."""
    if not isfinite(value):
        return "–"
    return _text(value, 2 - floor(log10(abs(value))) if value else 0)


def _text(value: float, digits: int) -> str:
    digits = min(max(digits, 0), 6)
    rounded = round(value, digits) + 0.0  # no minus zero
    return f"{rounded:,.{digits}f}".replace("-", "−").replace(",", "\u202f")
