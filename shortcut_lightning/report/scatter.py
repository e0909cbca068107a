"""A map of points in two dimensions, one colour and mark for each group."""

import base64
import io
from collections.abc import Mapping

import numpy as np
from markupsafe import Markup, escape

_MARKS = "os^DvPX*"


def scatter(groups: Mapping[str, np.ndarray], title: str) -> Markup:
    """Groups of points (N, 2) as an inline picture with a legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(groups.items()):
        mark = _MARKS[number % len(_MARKS)]
        axes.scatter(points[:, 0], points[:, 1], s=36, marker=mark, alpha=0.75, label=name)
    axes.legend(frameon=False)
    axes.set_xticks([])
    axes.set_yticks([])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Markup(f'<img src="{uri}" alt="{escape(title)}" style="max-width: 100%">')
