"""Dots and whiskers as an SVG that a page of Markdown shows, readable on white and on black."""

import math
from collections.abc import Sequence

from markupsafe import escape

from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.report.axis import Axis, number

_ROW, _TOP, _BOTTOM, _WIDTH, _LABEL, _VALUE = 20, 28, 24, 760, 330, 60  # pixels
_TEXT, _DOT = "#777", "#2f7fd1"


def whiskers(title: str, rows: Sequence[tuple[str, Estimate]]) -> str:
    """One row for each label: value, 95 % interval. Rows without a value are left out.

    Args:
        title: Above the plot.
        rows: Labels with their estimates, from above.

    Returns:
        The text of an SVG file; the same rows give the same text.
    """
    shown = [(label, each) for label, each in rows if not math.isnan(each.value)]
    axis = Axis.around([x for _, each in shown for x in (each.low, each.value, each.high)])
    height = _TOP + _ROW * len(shown) + _BOTTOM
    parts = [_text(_LABEL, 16, title, "start", "bold")]
    for tick in axis.ticks:
        x = _across(axis, tick)
        parts.append(_line(x, _TOP, x, height - _BOTTOM, "#8885", 1))
        parts.append(_text(x, height - 6, number(tick), "middle"))
    for index, (label, each) in enumerate(shown):
        y = _TOP + _ROW * (index + 0.5)
        parts.append(_text(_LABEL - 10, y + 4, label, "end"))
        parts.append(_line(_across(axis, each.low), y, _across(axis, each.high), y, _DOT, 2))
        parts.append(f'<circle cx="{_across(axis, each.value):.1f}" cy="{y}" r="4" fill="{_DOT}"/>')
        parts.append(_text(_WIDTH - 4, y + 4, f"{each.value:.2f}", "end"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" font-family="sans-serif" font-size="12">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _across(axis: Axis, value: float) -> float:
    return _LABEL + axis.percent(value) / 100 * (_WIDTH - _LABEL - _VALUE)


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, width: int) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y}" x2="{to_x:.1f}" y2="{to_y}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" fill="{_TEXT}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
