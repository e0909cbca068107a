"""Tables of audits: how a table, a number with its interval and a range are written."""

from collections.abc import Sequence

from shortcut_lightning.membership.roc import Interval


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float]) -> str:
    """From the lowest to the highest."""
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def interval(value: Interval) -> str:
    """A value and its bounds."""
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def signed(value: Interval) -> str:
    """A difference and its bounds."""
    return f"{value.value:+.2f} ({value.low:+.2f} to {value.high:+.2f})"
