"""Tables of audits: how a table, a number with its interval and a range are written."""

from collections.abc import Mapping, Sequence

from shortcut_lightning.membership.roc import Interval
from shortcut_lightning.report.markdown import lines


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(lines(head, rows))


def range_of(values: Sequence[float]) -> str:
    """From the lowest to the highest."""
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def interval(value: Interval) -> str:
    """A value and its bounds."""
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def signed(value: Interval) -> str:
    """A difference and its bounds."""
    return f"{value.value:+.2f} ({value.low:+.2f} to {value.high:+.2f})"


def differences(values: Mapping[str, Interval]) -> str:
    """Signed numbers with their intervals, each behind its name; one alone may have none."""
    return "; ".join(f"{name} {signed(value)}".strip() for name, value in values.items())
