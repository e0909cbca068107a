"""The one place where a caption, suffix or negative prompt is written.

The data module holds one `Prompts` and asks it for every string that reaches a text encoder, one
method per use. What an attack is told is the plain caption: a protector does not know how the
images will be trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompts:
    """The strings of one run. `class_prompt` may stay empty without prior preservation."""

    instance_prompt: str
    class_prompt: str = ""
    negative_prompt: str = ""

    def caption(self, text: str = "") -> str:
        """What is said about an instance image before any method adds to it: its own caption
        `text`, or the instance prompt where it has none."""
        return text or self.instance_prompt

    def instance(self, caption: str, concepts: str = "") -> str:
        """The prompt an instance image is trained with; `concepts` is a `concept_tail`."""
        return ", ".join(part for part in (caption, concepts) if part)

    def fitted(self, caption: str, concepts: str, fits: Callable[[str], bool]) -> str:
        """`instance`, with as many words taken off the caption's end as it takes to fit. A text
        encoder would cut the end of the prompt instead, which is where the concepts are."""
        words = caption.split()
        while words and not fits(self.instance(" ".join(words), concepts)):
            words.pop()
        return self.instance(" ".join(words), concepts)

    def prior(self) -> str:
        """The prompt a class image is trained with, in the prior loss."""
        return self.class_prompt

    def class_image(self) -> str:
        """The prompt class images are generated with."""
        return self.class_prompt

    def sampling(self, prompt: str) -> str:
        """The prompt an image of the tuned or the base model is sampled with."""
        return prompt

    def negative(self, concepts: str = "") -> str:
        """The negative prompt of sampling; `concepts` is a `concept_tail`, put first because text
        encoders cut the end."""
        return ", ".join(part for part in (concepts, self.negative_prompt) if part)


def location_token(number: int) -> str:
    """The word of an image's bin (GeoDiffusion's, arXiv 2306.04607)."""
    return f"<l{number}>"


def concept_tail(bins: Mapping[str, Sequence[int]]) -> str:
    """Concept names, each directly followed by its bins' words: `QR code<l6><l7> text<l1>`."""
    return " ".join(name + "".join(map(location_token, found)) for name, found in bins.items())
