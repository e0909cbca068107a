"""The procedural world: people who exist only as numbers, in scenes a caption can describe.

Everything follows from integers: :func:`identity` and :func:`scene` turn a seed into factors,
:func:`render` turns factors into a 64 px picture. An identity holds more than any caption says
(face shape, eyes, nose, brows, moles ...), so that learning *this* person needs pictures, while
every factor that a caption names can be read off the picture.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SIZE = 64

SKINS = ("pale", "tan", "brown", "green", "purple", "blue")
HAIRS = ("black", "brown", "blond", "red", "white", "blue")
STYLES = ("short", "long", "curly", "spiky", "bald")
BEARDS = ("none", "beard", "moustache")
BACKGROUNDS = ("beach", "forest", "city", "desert", "snow", "night")
SHIRTS = ("red", "blue", "green", "yellow", "white", "black")
EXPRESSIONS = ("serious", "smiling", "surprised")
QUALITIES = ("clean", "noisy", "blurry", "pattern")  # "pattern": noise alone, nobody in the picture
QUALITY_SHARES = (0.74, 0.12, 0.10, 0.04)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Identity:
    """What makes it this person. The first five fields are words of the caption, the rest is not.

    Lengths are shares of the picture's side for a face seen at scale 1; tilts are in radians.
    """

    skin: str
    hair: str
    style: str
    beard: str
    woman: bool
    face_width: float
    face_height: float
    jaw: float
    eye_spacing: float
    eye_size: float
    eye_height: float
    eye_tilt: float
    iris: tuple[int, int, int]
    brow_thickness: float
    brow_tilt: float
    brow_height: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    ears: float
    freckles: bool
    mole: tuple[float, float] | None
    blush: bool
    earrings: tuple[int, int, int] | None
    volume: float
    fringe: float
    parting: float
    skin_shift: tuple[int, int, int]
    hair_shift: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """What may change from one picture of a person to the next. `seed` fixes all small details."""

    background: str
    shirt: str
    expression: str
    glasses: bool
    quality: str
    shift: tuple[float, float]
    scale: float
    tilt: float
    light: tuple[float, float]
    warmth: float
    strength: float
    seed: int


class Drawing(NamedTuple):
    """One picture (uint8, 64 x 64 x 3), its full caption, its factors and the boxes of its parts.

    Boxes are xyxy in [0, 1] by part name ("face", "eyes", "nose", "mouth", "hair", "shirt" and,
    where worn, "glasses"); a pure noise pattern has none.
    """

    image: np.ndarray
    caption: str
    identity: Identity
    scene: Scene
    boxes: dict[str, Box]


def generator(*key: int) -> np.random.Generator:
    """An independent stream of random numbers for each tuple of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(key))


def identity(seed: int) -> Identity:
    """The person with this number; the same number is the same person on every machine."""
    rng = generator(seed, 0x1D)
    woman = bool(rng.random() < 0.5)
    irises = (
        (40, 90, 200),
        (40, 150, 70),
        (110, 60, 20),
        (30, 30, 30),
        (200, 130, 20),
        (150, 30, 30),
    )
    rings = ((250, 210, 40), (230, 40, 40), (60, 220, 230))
    mole = (float(rng.uniform(-0.75, 0.75)), float(rng.uniform(0.15, 0.6)))
    return Identity(
        skin=_pick(rng, SKINS),
        hair=_pick(rng, HAIRS),
        style=_pick(rng, STYLES),
        beard="none" if woman else _pick(rng, BEARDS),
        woman=woman,
        face_width=float(rng.uniform(0.175, 0.245)),
        face_height=float(rng.uniform(0.225, 0.29)),
        jaw=float(rng.uniform(0.0, 0.45)),
        eye_spacing=float(rng.uniform(0.36, 0.54)),
        eye_size=float(rng.uniform(0.036, 0.062)),
        eye_height=float(rng.uniform(-0.22, 0.0)),
        eye_tilt=float(rng.uniform(-0.35, 0.35)),
        iris=irises[rng.integers(len(irises))],
        brow_thickness=float(rng.uniform(0.012, 0.034)),
        brow_tilt=float(rng.uniform(-0.5, 0.5)),
        brow_height=float(rng.uniform(0.02, 0.05)),
        nose_length=float(rng.uniform(0.05, 0.13)),
        nose_width=float(rng.uniform(0.025, 0.06)),
        mouth_width=float(rng.uniform(0.05, 0.11)),
        mouth_height=float(rng.uniform(0.52, 0.66)),
        ears=float(rng.uniform(0.03, 0.075)),
        freckles=bool(rng.random() < 0.25),
        mole=mole if rng.random() < 0.4 else None,
        blush=bool(rng.random() < 0.3),
        earrings=rings[rng.integers(len(rings))]
        if rng.random() < (0.4 if woman else 0.1)
        else None,
        volume=float(rng.uniform(0.02, 0.085)),
        fringe=float(rng.uniform(-0.75, -0.4)),
        parting=float(rng.uniform(-0.8, 0.8)),
        skin_shift=_offset(rng, 14),
        hair_shift=_offset(rng, 18),
    )


def scene(seed: int, quality: str | None = None) -> Scene:
    """A random scene; `quality` (one of QUALITIES) is drawn by QUALITY_SHARES when None."""
    rng = generator(seed, 0x5C)
    drawn = QUALITIES[rng.choice(len(QUALITIES), p=QUALITY_SHARES)]
    return Scene(
        background=_pick(rng, BACKGROUNDS),
        shirt=_pick(rng, SHIRTS),
        expression=_pick(rng, EXPRESSIONS),
        glasses=bool(rng.random() < 0.3),
        quality=quality or drawn,
        shift=(float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.04, 0.04))),
        scale=float(rng.uniform(0.9, 1.1)),
        tilt=float(rng.uniform(-0.14, 0.14)),
        light=(float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.0, 0.22))),
        warmth=float(rng.uniform(-0.06, 0.06)),
        strength=float(rng.random()),
        seed=seed,
    )


def render(who: Identity, where: Scene, size: int = SIZE) -> tuple[np.ndarray, dict[str, Box]]:
    """Picture (uint8, `size` x `size` x 3) and boxes of a person in a scene. Surface and sensor
    noise are as fine in a larger picture; the pocket's networks know those of 64 pixels."""
    from shortcut_lightning.pocket import backgrounds, drawing, texture
    from shortcut_lightning.pocket.pen import Pen

    rng = generator(where.seed, 0x9E)
    if where.quality == "pattern":
        return texture.to_bytes(texture.pattern(size, rng)), {}
    pen = Pen(size)
    backgrounds.BACKGROUNDS[where.background](pen, rng)
    boxes = drawing.draw_person(pen, who, where, rng)
    pixels = texture.develop(pen.pixels(), where.light, where.warmth, rng)
    return texture.to_bytes(texture.degrade(pixels, where.quality, where.strength, rng)), boxes


def draw(
    seed: int, index: int, views: int = 1, quality: str | None = None, size: int = SIZE
) -> Drawing:
    """The picture number `index` of the collection `seed`.

    Each run of `views` consecutive indices shows one person, so a collection also gives positives
    for an identity encoder. Collections with different seeds share no person.
    """
    from shortcut_lightning.pocket.captions import describe

    who = identity(seed_of(seed, index // views))
    where = scene(seed_of(seed, index, 1), quality)
    image, boxes = render(who, where, size)
    return Drawing(image, describe(who, where), who, where, boxes)


def write_subject(seed: int, folder: Path, instances: int = 4, references: int = 32) -> None:
    """Write a photo album of the person `seed`: `instance/` to learn from, `reference/` held out.

    Every picture is clean and comes from its own scene; `metadata.jsonl` beside the pictures holds
    a row (`file_name`, `text` = full caption) for each. The instance pictures spread over different
    backgrounds, since four pictures in front of the same sea would make the sea part of the person.
    """
    from shortcut_lightning.pocket.captions import describe

    who = identity(seed)
    order = generator(seed, 0xA1).permutation(len(BACKGROUNDS))
    for part, start, count in (("instance", 0, instances), ("reference", instances, references)):
        path = Path(folder) / part
        path.mkdir(parents=True, exist_ok=True)
        rows = []
        for index in range(start, start + count):
            where = scene(seed_of(seed, index, 2), "clean")
            where = replace(where, background=BACKGROUNDS[order[index % len(order)]])
            name = f"{index - start:03d}.png"
            Image.fromarray(render(who, where)[0]).save(path / name)
            rows.append(json.dumps({"file_name": name, "text": describe(who, where)}))
        (path / "metadata.jsonl").write_text("\n".join(rows) + "\n")


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[rng.integers(len(words))]


def _offset(rng: np.random.Generator, most: int) -> tuple[int, int, int]:
    red, green, blue = rng.integers(-most, most + 1, 3).tolist()
    return red, green, blue


def seed_of(*key: int) -> int:
    """One 63-bit number for a tuple of integers, far away from the small numbers people type."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
