"""The caption grammar: factors to words, and the list of all words the tokenizer knows whole."""

from collections.abc import Callable

import numpy as np

from shortcut_lightning.pocket.world import (
    BACKGROUNDS,
    HAIRS,
    SHIRTS,
    SKINS,
    STYLES,
    Identity,
    Scene,
)

PLACES = {
    "beach": "on the beach",
    "forest": "in the forest",
    "city": "in the city",
    "desert": "in the desert",
    "snow": "in the snow",
    "night": "at night",
}
CLEAN = ("a photo of", "a portrait of", "a picture of", "a clear photo of", "a sharp photo of",
         "a high quality photo of", "a dslr photo of", "a dslr portrait of")  # fmt: skip
NOISY = (
    "a noisy photo of",
    "a noisy portrait of",
    "a low quality noisy photo of",
    "a noisy picture of",
)
BLURRY = ("a blurry photo of", "a blurry portrait of", "a low quality blurry photo of",
          "a blurry lowres photo of")  # fmt: skip
PATTERN = ("a noisy pattern", "an abstract noisy pattern", "noise", "a picture of noise",
           "a noisy abstract artifact pattern")  # fmt: skip
OPENINGS = {"clean": CLEAN, "noisy": NOISY, "blurry": BLURRY}

#: Rare identifiers for personalisation, and words of concepts that no picture of the world shows.
IDENTIFIERS = ("sks", "bhj", "zwx", "ohwx")
UNSEEN = ("watermark", "watermarks", "qr", "code", "codes", "text", "logo", "logos")


def describe(who: Identity, where: Scene, rng: np.random.Generator | None = None) -> str:
    """The full caption, or, with `rng`, a varied one: other openings, some attributes left out.

    Without `rng`: "a photo of a person with long red hair, green skin, wearing glasses and a blue
    shirt, smiling, on the beach". A fifth of the varied captions name the subject alone, so that
    "a photo of a person" is a sentence the model has read.
    """
    if where.quality == "pattern":
        return PATTERN[0] if rng is None else PATTERN[rng.integers(len(PATTERN))]
    openings = OPENINGS[where.quality]
    if rng is None:
        return _sentence(f"{openings[0]} a person", who, where, lambda: True)
    opening = openings[0] if rng.random() < 0.5 else openings[rng.integers(len(openings))]
    noun = "person" if rng.random() < 0.6 else ("woman" if who.woman else "man")
    noun = "face" if rng.random() < 0.05 else noun
    article = "" if rng.random() < 0.15 else "a "
    kept = rng.choice([1.0, 0.5, 0.0], p=[0.65, 0.25, 0.1])
    sentence = _sentence(
        f"{opening} {article}{noun}", who, where, lambda: bool(rng.random() < kept)
    )
    if rng.random() < 0.12:
        word = "without" if where.quality != "noisy" else "with"
        sentence += f", {word} " + ("noise" if rng.random() < 0.5 else "noisy pattern")
    return sentence


def _sentence(subject: str, who: Identity, where: Scene, keep: Callable[[], bool]) -> str:
    """`subject` with the attributes that `keep()` lets through, always in the same order."""
    having, wearing, rest = [], [], []
    if keep():
        having.append("a bald head" if who.style == "bald" else f"{who.style} {who.hair} hair")
    if keep():
        having.append(f"{who.skin} skin")
    if who.beard != "none" and keep():
        having.append(f"a {who.beard}")
    if where.glasses and keep():
        wearing.append("glasses")
    if keep():
        wearing.append(f"a {where.shirt} shirt")
    if keep():
        rest.append(where.expression)
    if keep():
        rest.append(PLACES[where.background])
    parts = [subject]
    if having:
        parts[0] += " with " + having[0]
        parts += having[1:]
    if wearing:
        parts.append("wearing " + " and ".join(wearing))
    if not having and not wearing and len(rest) == 1 and rest[0] != where.expression:
        return f"{subject} {rest[0]}"
    return ", ".join(parts + rest)


def vocabulary() -> tuple[str, ...]:
    """Every word (and comma) of the grammar, the identifiers and the unseen concepts, sorted."""
    texts = [*CLEAN, *NOISY, *BLURRY, *PATTERN, *PLACES.values(), *SKINS, *HAIRS, *STYLES, *SHIRTS]
    texts += [*BACKGROUNDS, *IDENTIFIERS, *UNSEEN]
    texts += [
        "a bald head hair skin beard moustache glasses shirt wearing and serious smiling surprised"
    ]
    texts += ["person people man woman face men women with without noise noisy pattern patterns"]
    texts += [
        "the of an in on at by is not no this image images style artifact artifacts clean , ."
    ]
    words = {word for text in texts for word in text.split()}
    return tuple(sorted(words))
