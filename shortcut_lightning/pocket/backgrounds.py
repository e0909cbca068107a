"""Six backgrounds; where trees, windows, dunes and stars stand is new each time."""

import numpy as np

from shortcut_lightning.pocket.pen import Colour, Pen


def _beach(pen: Pen, rng: np.random.Generator) -> None:
    sea, sand = rng.uniform(0.45, 0.55), rng.uniform(0.66, 0.76)
    _bands(pen, [(0, (122, 196, 250)), (sea, (20, 112, 184)), (sand, (240, 218, 160))])
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(0, 1), rng.uniform(0.05, 0.35)
        for dx in (-0.07, 0.0, 0.07):
            pen.ellipse(x + dx, y + abs(dx) * 0.3, 0.075, 0.045, (246, 250, 254))
    for _ in range(4):
        x, y = rng.uniform(0, 1), rng.uniform(sea + 0.04, sand - 0.02)
        pen.stroke([(x - 0.08, y), (x + 0.08, y)], 0.012, (180, 222, 244))


def _forest(pen: Pen, rng: np.random.Generator) -> None:
    _bands(pen, [(0, (38, 92, 44)), (rng.uniform(0.75, 0.85), (58, 70, 30))])
    for x in rng.uniform(0, 1, 7):
        width = rng.uniform(0.02, 0.05)
        pen.polygon(
            np.array([[x - width, 0], [x + width, 0], [x + width, 1], [x - width, 1]]), (70, 44, 22)
        )
    for _ in range(16):
        x, y = rng.uniform(0, 1), rng.uniform(0, 0.55)
        green = int(rng.integers(100, 180))
        radius = rng.uniform(0.03, 0.09)
        pen.ellipse(x, y, radius, radius, (int(green * 0.4), green, int(green * 0.35)))


def _city(pen: Pen, rng: np.random.Generator) -> None:
    _bands(pen, [(0, (170, 182, 200)), (0.9, (86, 88, 94))])
    x = -0.05
    while x < 1.0:
        width, top = rng.uniform(0.14, 0.24), rng.uniform(0.08, 0.5)
        grey = int(rng.integers(76, 128))
        pen.polygon(
            np.array([[x, top], [x + width, top], [x + width, 0.95], [x, 0.95]]),
            (grey, grey, grey + 14),
        )
        for wx in np.arange(x + 0.03, x + width - 0.03, 0.06):
            for wy in np.arange(top + 0.04, 0.9, 0.085):
                if rng.random() < 0.75:
                    window = np.array(
                        [[wx, wy], [wx + 0.033, wy], [wx + 0.033, wy + 0.045], [wx, wy + 0.045]]
                    )
                    pen.polygon(window, (248, 226, 130))
        x += width + 0.01


def _desert(pen: Pen, rng: np.random.Generator) -> None:
    _bands(pen, [(0, (252, 206, 140))])
    for base, colour in ((0.5, (226, 158, 84)), (0.64, (204, 130, 62)), (0.8, (180, 106, 46))):
        phase, waves = rng.uniform(0, 6.3), rng.uniform(4, 9)
        xs = np.linspace(0, 1, 20)
        ridge = np.stack([xs, base + 0.05 * np.sin(waves * xs + phase)], 1)
        pen.polygon(np.concatenate([ridge, [[1, 1], [0, 1]]]), colour)
    if rng.random() < 0.7:
        pen.ellipse(rng.uniform(0.08, 0.92), rng.uniform(0.08, 0.25), 0.07, 0.07, (255, 246, 196))


def _snow(pen: Pen, rng: np.random.Generator) -> None:
    _bands(pen, [(0, (184, 200, 222)), (rng.uniform(0.6, 0.72), (240, 244, 250))])
    for x in (rng.uniform(0, 0.3), rng.uniform(0.7, 1.0)):
        base, tall = rng.uniform(0.62, 0.8), rng.uniform(0.3, 0.5)
        for level in (0.0, 0.3, 0.6):
            half = 0.14 * (1 - level * 0.7)
            low, high = base - tall * level, base - tall * (level + 0.45)
            pen.polygon(np.array([[x - half, low], [x, high], [x + half, low]]), (52, 92, 84))
    for x, y in rng.uniform(0, 1, (26, 2)):
        pen.ellipse(x, y, 0.014, 0.014, (255, 255, 255))


def _night(pen: Pen, rng: np.random.Generator) -> None:
    _bands(pen, [(0, (14, 16, 52)), (rng.uniform(0.7, 0.85), (26, 26, 40))])
    for x, y in rng.uniform(0, 1, (22, 2)) * (1, 0.72):
        radius = rng.uniform(0.008, 0.016)
        pen.ellipse(x, y, radius, radius, (250, 250, 226))
    pen.ellipse(rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.22), 0.08, 0.08, (240, 234, 180))


def _bands(pen: Pen, bands: list[tuple[float, Colour]]) -> None:
    for top, colour in bands:
        pen.polygon(np.array([[0, top], [1.01, top], [1.01, 1.01], [0, 1.01]]), colour)


#: Name -> painter of a place.
BACKGROUNDS = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "desert": _desert,
    "snow": _snow,
    "night": _night,
}
