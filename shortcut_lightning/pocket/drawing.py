"""Brush work: a person, from shoulders to eyebrows."""

import numpy as np

from shortcut_lightning.pocket.pen import CIRCLE, Colour, Pen
from shortcut_lightning.pocket.world import Box, Identity, Scene

SKIN_COLOURS = {
    "pale": (250, 222, 200),
    "tan": (222, 170, 122),
    "brown": (126, 78, 48),
    "green": (96, 182, 92),
    "purple": (156, 100, 200),
    "blue": (92, 150, 226),
}
HAIR_COLOURS = {
    "black": (30, 26, 30),
    "brown": (98, 60, 30),
    "blond": (238, 204, 96),
    "red": (206, 62, 24),
    "white": (232, 232, 232),
    "blue": (42, 66, 208),
}
SHIRT_COLOURS = {
    "red": (208, 36, 36),
    "blue": (36, 70, 196),
    "green": (34, 138, 56),
    "yellow": (240, 212, 36),
    "white": (242, 242, 242),
    "black": (28, 28, 30),
}


def draw_person(pen: Pen, who: Identity, where: Scene, rng: np.random.Generator) -> dict[str, Box]:
    """Paint shoulders, head and face; returns the boxes of the parts (xyxy, clipped to [0, 1])."""
    skin = _shift(SKIN_COLOURS[who.skin], who.skin_shift)
    hair = _shift(HAIR_COLOURS[who.hair], who.hair_shift)
    shade = _scale(skin, 0.72)
    w, h = who.face_width, who.face_height
    parts: dict[str, list[np.ndarray]] = {}
    centre = (0.5 + where.shift[0], 0.47 + where.shift[1])
    pen.pose(centre, where.scale, where.tilt)
    if who.style == "long":
        back = pen.ellipse(0, 0.12, w + 0.05 + who.volume * 0.5, h + 0.13, _scale(hair, 0.85))
        parts["hair"] = [back]
    shirt = _shift(SHIRT_COLOURS[where.shirt], tuple(rng.integers(-14, 15, 3).tolist()))
    pen.pose(centre, where.scale, where.tilt * 0.4)
    parts["shirt"] = [pen.ellipse(0, 0.60, 0.36, 0.29, shirt)]
    pen.polygon(
        np.array([[-0.08, 0.1], [0.08, 0.1], [0.09, 0.36], [0.0, 0.41], [-0.09, 0.36]]), shade
    )
    pen.pose(centre, where.scale, where.tilt)

    for side in (-1, 1):
        pen.ellipse(side * w, 0.02, who.ears * 0.6, who.ears, shade)
        if who.earrings:
            pen.ellipse(side * (w + 0.012), 0.04 + who.ears, 0.02, 0.026, who.earrings)
    parts["face"] = [pen.polygon(_head(w, h, who.jaw), skin)]
    if who.blush:
        for side in (-1, 1):
            pen.ellipse(side * w * 0.62, h * 0.34, 0.045, 0.03, _mix(skin, (235, 80, 90), 0.5))
    if who.beard == "beard":
        pen.polygon(_lower_face(w, h, who.jaw), hair)
        pen.ellipse(0, h * (who.mouth_height + 0.02), who.mouth_width + 0.02, 0.045, skin)
    if who.freckles:
        for x, y in (
            (-0.62, 0.2),
            (-0.4, 0.3),
            (-0.68, 0.38),
            (0.62, 0.2),
            (0.4, 0.3),
            (0.68, 0.38),
        ):
            pen.ellipse(x * w, y * h, 0.013, 0.013, _scale(skin, 0.5))
    parts["hair"] = parts.get("hair", []) + _hair(pen, who, hair, w, h)
    parts["eyes"] = _eyes(pen, who, where, hair)
    parts["nose"] = _nose(pen, who, skin)
    parts["mouth"] = _mouth(pen, who, where, hair)
    if who.mole:
        pen.ellipse(who.mole[0] * w, who.mole[1] * h, 0.019, 0.019, (40, 20, 14))
    if where.glasses:
        parts["glasses"] = _glasses(pen, who)
    return {name: _box(points) for name, points in parts.items() if points}


def _head(w: float, h: float, jaw: float) -> np.ndarray:
    low = np.clip(CIRCLE[:, 1], 0, None)
    width = w * (1 - jaw * low**2 * 0.8) * (1 + 0.12 * low * (1 - low) * 4 * (0.4 - jaw))
    return np.stack([CIRCLE[:, 0] * width, CIRCLE[:, 1] * h], 1)


def _lower_face(w: float, h: float, jaw: float) -> np.ndarray:
    outline = _head(w, h, jaw)
    low = outline[outline[:, 1] > h * 0.12] * (1.05, 1.1)
    low = low[np.argsort(-low[:, 0])]
    inner = np.array([[-0.55 * w, 0.42 * h], [0.0, 0.4 * h], [0.55 * w, 0.42 * h]])
    return np.concatenate([low, inner])


def _hair(pen: Pen, who: Identity, hair: Colour, w: float, h: float) -> list[np.ndarray]:
    if who.style == "bald":
        return []
    top = CIRCLE[CIRCLE[:, 1] <= 0.01]
    top = top[np.argsort(np.arctan2(top[:, 1], top[:, 0]))]
    reach = 0.1 if who.style == "short" else 0.02
    outer = top * (w + 0.012 + who.volume * 0.35, h + who.volume) + (0, reach * h)
    part = np.array(
        [[0.95 * w, -0.12 * h], [who.parting * w * 0.7, who.fringe * h], [-0.95 * w, -0.12 * h]]
    )
    painted = [pen.polygon(np.concatenate([outer, part[::1]]), hair)]
    if who.style == "curly":
        size = 0.05 + who.volume * 0.5
        for angle in np.linspace(np.pi * 0.97, 2.03 * np.pi, 11):
            x, y = np.cos(angle) * (w + 0.025), np.sin(angle) * (h + 0.01)
            painted.append(pen.ellipse(x, y, size, size, hair))
    if who.style == "spiky":
        for angle in np.linspace(np.pi * 1.02, 1.98 * np.pi, 8):
            along = np.array([np.cos(angle), np.sin(angle)])
            across = np.array([-along[1], along[0]]) * 0.055
            root = along * (w * 0.93, h * 0.9)
            tip = root + along * (0.09 + who.volume)
            painted.append(pen.polygon(np.stack([root - across, tip, root + across]), hair))
    if who.style == "long":
        for side in (-1, 1):
            lock = np.array(
                [[0.8 * w, -0.5 * h], [w + 0.05, -0.3 * h], [w + 0.06, h + 0.08], [w - 0.015, h]]
            )
            painted.append(pen.polygon(lock * (side, 1), hair))
    return painted


def _eyes(pen: Pen, who: Identity, where: Scene, hair: Colour) -> list[np.ndarray]:
    painted = []
    size = who.eye_size * (1.15 if where.expression == "surprised" else 1.0)
    y = who.eye_height * who.face_height
    for side in (-1, 1):
        x = side * who.eye_spacing * who.face_width
        tall = size * (0.95 if where.expression == "surprised" else 0.72)
        if who.woman:
            pen.ellipse(x, y - 0.008, size * 1.22, tall * 1.25, (30, 20, 26), side * who.eye_tilt)
        painted.append(pen.ellipse(x, y, size, tall, (250, 250, 250), side * who.eye_tilt))
        pen.ellipse(x, y, size * 0.55, min(tall, size * 0.62), who.iris)
        pen.ellipse(x, y, size * 0.24, size * 0.26, (12, 12, 16))
        lift = size + who.brow_height + (0.025 if where.expression == "surprised" else 0.0)
        half = size * 1.25
        drop = np.tan(who.brow_tilt) * half * side
        ends = ((x - half, y - lift - drop), (x + half, y - lift + drop))
        pen.stroke(ends, who.brow_thickness, _scale(hair, 0.7))
    return painted


def _nose(pen: Pen, who: Identity, skin: Colour) -> list[np.ndarray]:
    top = who.eye_height * who.face_height + 0.03
    bottom = top + who.nose_length
    points = np.array([[0.0, top], [who.nose_width, bottom], [-who.nose_width, bottom]])
    tip = pen.ellipse(0, bottom, who.nose_width, 0.018, _scale(skin, 0.68))
    return [pen.polygon(points, _scale(skin, 0.8)), tip]


def _mouth(pen: Pen, who: Identity, where: Scene, hair: Colour) -> list[np.ndarray]:
    y, half = who.mouth_height * who.face_height, who.mouth_width
    lips = (200, 24, 60) if who.woman else (128, 44, 40)
    if who.beard == "moustache":
        bar = np.array([[0, -0.055], [half + 0.035, -0.02], [half, -0.002], [0, -0.02]])
        for side in (-1, 1):
            pen.polygon(bar * (side, 1) + (0, y), hair)
    if where.expression == "surprised":
        painted = [pen.ellipse(0, y + 0.015, half * 0.5, 0.045, lips)]
        pen.ellipse(0, y + 0.018, half * 0.3, 0.026, (50, 8, 14))
        return painted
    if where.expression == "smiling":
        arc = np.linspace(0.0, np.pi, 11)
        curve = np.stack([np.cos(arc) * half * 1.1, np.sin(arc) * 0.055 + y - 0.012], 1)
        painted = [pen.polygon(curve, lips)]
        pen.polygon(
            np.stack([np.cos(arc) * half * 0.85, np.sin(arc) * 0.026 + y - 0.006], 1),
            (250, 250, 250),
        )
        return painted
    thick = 0.030 if who.woman else 0.022
    return [pen.ellipse(0, y + 0.005, half * 0.9, thick * 0.7, lips)]


def _glasses(pen: Pen, who: Identity) -> list[np.ndarray]:
    y, x = who.eye_height * who.face_height, who.eye_spacing * who.face_width
    radius = max(0.062, min(who.eye_size * 1.45, x - 0.012))
    rim = CIRCLE[np.r_[0:24, 0]]
    painted = []
    for side in (-1, 1):
        painted.append(pen.stroke(rim * radius + (side * x, y), 0.02, (16, 16, 20)))
        pen.stroke(
            [(side * (x + radius), y), (side * who.face_width, y - 0.01)], 0.02, (16, 16, 20)
        )
    pen.stroke([(-max(x - radius, 0.0), y), (max(x - radius, 0.0), y)], 0.02, (16, 16, 20))
    return painted


def _box(points: list[np.ndarray]) -> Box:
    stacked = np.concatenate(points).clip(0, 1)
    low, high = stacked.min(0), stacked.max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _shift(colour: Colour, by: tuple[int, ...]) -> Colour:
    red, green, blue = (min(255, max(0, c + d)) for c, d in zip(colour, by, strict=True))
    return red, green, blue


def _scale(colour: Colour, by: float) -> Colour:
    red, green, blue = (int(c * by) for c in colour)
    return red, green, blue


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (
        round(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True)
    )
    return red, green, blue
