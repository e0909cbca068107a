"""A brush for filled shapes on a canvas three times too large, shrunk at the end."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
OVERSAMPLING = 3
CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 25)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 25)[:-1])], 1
)


class Pen:
    """Draws in unit coordinates (x right, y down, [0, 1]) after a pose: scale, tilt, shift."""

    def __init__(self, size: int) -> None:
        self.canvas = Image.new("RGB", (size * OVERSAMPLING, size * OVERSAMPLING))
        self.brush = ImageDraw.Draw(self.canvas)
        self.side = size * OVERSAMPLING
        self.matrix = np.eye(2)
        self.offset = np.zeros(2)

    def pose(self, centre: tuple[float, float], scale: float, tilt: float) -> None:
        """From here on (0, 0) is `centre` and shapes are scaled and tilted around it."""
        cos, sin = scale * np.cos(tilt), scale * np.sin(tilt)
        self.matrix, self.offset = np.array([[cos, sin], [-sin, cos]]), np.array(centre)

    def polygon(self, points: np.ndarray, colour: Colour) -> np.ndarray:
        """Fill a polygon (n, 2); returns its points on the canvas in unit coordinates."""
        placed = points @ self.matrix + self.offset
        self.brush.polygon((placed * self.side).ravel().tolist(), fill=colour)
        return placed

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, tilt: float = 0.0
    ) -> np.ndarray:
        """Fill an ellipse around (x, y)."""
        cos, sin = np.cos(tilt), np.sin(tilt)
        points = CIRCLE * (rx, ry) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
        return self.polygon(points, colour)

    def stroke(
        self, points: Iterable[tuple[float, float]], width: float, colour: Colour
    ) -> np.ndarray:
        """Draw a line through `points` with rounded joints."""
        placed = np.asarray(list(points), float) @ self.matrix + self.offset
        scaled = [tuple(p) for p in (placed * self.side).tolist()]
        self.brush.line(scaled, fill=colour, width=max(1, round(width * self.side)), joint="curve")
        return placed

    def pixels(self) -> np.ndarray:
        """The picture at its real size, float32 (H, W, 3) in [0, 1]."""
        return np.asarray(self.canvas.reduce(OVERSAMPLING), np.float32) / 255
