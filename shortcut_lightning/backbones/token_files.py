"""Textual-inversion files: words with the vectors that they stand for.

diffusers writes `{word: vectors}`, A1111 `emb_params` or a `.pt` with `string_to_param`, and where
there are several text encoders all write `clip_l`, `clip_g` and `t5xxl` (diffusers' scripts for
FLUX: `t5`), one for each.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from shortcut_lightning import weights

KEY = "model.embeddings"
_FAMILIES = {
    (768,): "Stable Diffusion 1.x",
    (1024,): "Stable Diffusion 2.x",
    (768, 1280): "Stable Diffusion XL",
    (1280,): "Stable Diffusion XL's refiner",
    (768, 1280, 4096): "Stable Diffusion 3",
    (768, 4096): "FLUX.1",
    (2560,): "FLUX.2 klein 4B or Z-Image",
    (3584,): "Qwen-Image",
    (4096,): "FLUX.2 klein 9B",
}


# What files call the text encoders, in the order of the pipelines.
ENCODERS = ("clip_l", "clip_g", "t5xxl")


@dataclass(frozen=True)
class Word:
    """A new word, with its vectors (n, D) for each text encoder."""

    token: str
    vectors: list[Tensor]
    encoders: tuple[str, ...] = ()  # of `ENCODERS`; empty where there is only one


def read(path: str) -> Word:
    """What a file holds.

    Raises ValueError where it is no textual inversion; nothing is unpickled.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"No textual-inversion file at '{path}' ({KEY}).")
    found, metadata = weights.read(file, KEY)
    params = found.get("string_to_param")
    named = metadata.get("token") or file.stem
    if "t5" in found:
        found["t5xxl"] = found.pop("t5")
    encoders = tuple(each for each in ENCODERS if each in found)
    if isinstance(params, dict) and len(params) == 1:
        tensors, named = list(params.values()), str(found.get("name") or file.stem)
    elif len(encoders) > 1 and len(found) == len(encoders):
        tensors = [found[each] for each in encoders]
    else:
        encoders = ()
        tensors = list(found.values())
        named = named if found.keys() == {"emb_params"} else next(iter(found), "")
        if len(tensors) != 1:
            names = weights.first([str(name) for name in found]) or "nothing"
            raise ValueError(
                f"'{path}' holds {names}; a textual inversion has one word's vectors, or "
                f"several of {', '.join(ENCODERS)} ({KEY})."
            )
    if not named or not all(isinstance(each, Tensor) and each.dim() in (1, 2) for each in tensors):
        raise ValueError(
            f"'{path}' is no textual inversion: '{named}' is not a vector or a table of them "
            f"({KEY})."
        )
    weights.refuse_whole_numbers([(named, each) for each in tensors], path, KEY)
    weights.refuse_not_finite([(named, each) for each in tensors], path, KEY)
    return Word(named, [each.detach() for each in tensors], encoders)


def check(word: Word, widths: Sequence[int], places: int, known: Container[str], path: str) -> None:
    """Raises ValueError where a word is for text encoders of other widths, has no vector or more
    than a prompt has `places` for, or is known already."""
    its = tuple(each.shape[-1] for each in word.vectors)
    if its != tuple(widths):
        raise ValueError(f"'{path}' is for {_told(its)}; this model is {_told(widths)} ({KEY}).")
    if taken := [token for token in (word.token, f"{word.token}_1") if token in known]:
        raise ValueError(
            f"'{path}' brings the word '{word.token}', but this model knows '{taken[0]}' already; "
            f"rename it (for A1111's and XL's files, the file) ({KEY})."
        )
    count = max(len(each) if each.dim() > 1 else 1 for each in word.vectors)
    if not 1 <= count <= places:
        raise ValueError(
            f"'{path}' has {count} vectors for the word '{word.token}'; a word has from 1 to "
            f"{places}, which is all that a prompt holds ({KEY})."
        )
    if len({len(each) for each in word.vectors if each.dim() > 1}) > 1:
        raise ValueError(f"'{path}' has other numbers of vectors for each text encoder ({KEY}).")


def _told(widths: Sequence[int]) -> str:
    """A family by the widths of its text encoders."""
    wide = " and ".join(map(str, widths))
    if name := _FAMILIES.get(tuple(widths)):
        return f"{name} (vectors {wide} wide)"
    if len(widths) > 1:
        number = {2: "two", 3: "three"}.get(len(widths), "many")
        return f"a model with {number} text encoders, vectors {wide} wide"
    return f"a model with one text encoder and vectors {wide} wide"
