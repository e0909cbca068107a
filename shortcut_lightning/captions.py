"""What becomes of an instance image's caption before any method adds its words to it.

The words of decoupling and erasing come afterwards (`prompts.py`), so they stand behind whatever is
shuffled, and stay where a caption is dropped.
"""

from dataclasses import dataclass

import torch

from shortcut_lightning import draws
from shortcut_lightning.prompts import words_of
from shortcut_lightning.ranges import CountOrNone, Share, ranged


@ranged
@dataclass(frozen=True)
class Captions:
    """Settings; the defaults leave every caption as it is.

    Args:
        template: What is said with a caption: `{caption}` stands for the file's own (the instance
            prompt without `data.use_captions`), `{instance}` and `{class}` for the prompts. What
            stands before and behind is prefix and suffix: "studio light, {caption}, grainy".
        shuffle: Put the parts between commas into an order of its own for each example.
        keep_first: So many of the first parts stay where they are, as kohya's `keep_tokens`; those
            of the template count. A long caption has to keep the part that names the subject, or it
            would come behind what the text encoder takes.
        dropout: Share of the instance examples that are trained without a caption, so that
            guidance has something to lead away from.
    """

    template: str = "{caption}"
    shuffle: bool = False
    keep_first: CountOrNone = 1
    dropout: Share = 0.0

    def __post_init__(self) -> None:
        if not self.template.strip():
            raise ValueError(
                "data.captions.template is empty; '{caption}' says the caption as it is."
            )

    @property
    def random(self) -> bool:
        """Whether a picture has more than one caption."""
        return self.shuffle or self.dropout > 0

    def drawn(self, caption: str, seed: int, draw: int) -> str:
        """The caption of one example, by its draw alone."""
        if self.dropout > 0:
            chance = draws.generator(seed, "caption dropout", draw)
            if torch.rand((), generator=chance) < self.dropout:
                return ""
        if not self.shuffle:
            return caption
        kept, free = self._parts(caption)
        chance = draws.generator(seed, "caption order", draw)
        order = torch.randperm(len(free), generator=chance).tolist()
        return ", ".join([*kept, *(free[number] for number in order)])

    def latest(self, caption: str, words: set[str]) -> str:
        """The caption in the order in which the parts with these words come last."""
        if not self.shuffle:
            return caption
        kept, free = self._parts(caption)
        return ", ".join([*kept, *sorted(free, key=lambda part: bool(words & {*words_of(part)}))])

    def _parts(self, caption: str) -> tuple[list[str], list[str]]:
        parts = [part.strip() for part in caption.split(",")]
        return parts[: self.keep_first], parts[self.keep_first :]
