"""What a text encoder would cut off, counted and named before anything is trained.

A text encoder takes so many tokens (75 in CLIP) and silently drops the rest. Where the word that
names the subject is among the rest, it is never learned, so that is an error.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from shortcut_lightning.prompts import words_of


class Room(NamedTuple):
    """How much a text encoder takes."""

    count: Callable[[str], int]  # tokens of a text
    length: int  # tokens that a prompt may have

    def fits(self, text: str) -> bool:
        """Whether nothing is cut off."""
        return self.count(text) <= self.length

    def kept(self, text: str) -> list[str]:
        """The words that are left, in lower case without punctuation."""
        words = text.split()
        while words and not self.fits(" ".join(words)):
            words.pop()
        return words_of(" ".join(words))


class Worded(NamedTuple):
    """What is said about a training image."""

    name: str
    caption: str  # its own, or the instance prompt
    prompt: str  # as it is trained on


def too_long(what: str, texts: Iterable[str], room: Room) -> str:
    """One sentence about the texts that do not fit, "" where all do. `what` names them."""
    texts = list(texts)
    cut = [text for text in texts if not room.fits(text)]
    if not cut:
        return ""
    said = cut[0] if len(cut[0]) <= 60 else f"{cut[0][:57]}..."
    return (
        f"{what}: {len(cut)} of {len(texts)} do not fit the text encoder's {room.length} tokens "
        f"and lose words; for example '{said}' has {room.count(cut[0])}."
    )


def refuse_lost_subject(
    subject: set[str],
    images: Sequence[Worded],
    room: Room,
    shuffled: bool = False,
    besides: str = "",
) -> None:
    """Raises ValueError where a word of `subject` stands in a caption, and what is left of the
    prompt no longer has it. Captions that are `shuffled` come with it last; `besides` is one more
    thing to do about it."""
    lost = []
    for image in images:
        said = subject & {*words_of(image.caption)}
        if said and not (room.fits(image.prompt) and image.prompt.startswith(image.caption)):
            gone = said - {*room.kept(image.prompt)}
            lost += [(image, min(gone))] if gone else []
    if lost:
        image, word = lost[0]
        there = ", where data.captions.keep_first leaves it" if shuffled else ""
        raise ValueError(
            f"'{word}', which names the subject, is cut off the prompts of {len(lost)} of "
            f"{len(images)} images, so it would not be learned: the text encoder takes "
            f"{room.length} tokens, and the caption of {image.name} has "
            f"{room.count(image.caption)}. Shorten the captions (data.use_captions) or "
            f"data.instance_prompt, or put '{word}' first{there}{besides}."
        )
