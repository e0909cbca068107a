"""The one place where a caption, suffix or negative prompt is written.

The data module holds one `Prompts` and asks it for every string that reaches a text encoder, one
method per use. What an attack is told is the plain caption: a protector does not know how the
images will be trained on.
"""

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

    def instance(self, caption: str) -> str:
        """The prompt an instance image is trained with."""
        return caption

    def prior(self) -> str:
        """The prompt a class image is trained with, in the prior loss."""
        return self.class_prompt

    def class_image(self) -> str:
        """The prompt class images are generated with."""
        return self.class_prompt

    def sampling(self, prompt: str) -> str:
        """The prompt an image of the tuned or the base model is sampled with."""
        return prompt

    def negative(self) -> str:
        """The negative prompt of sampling."""
        return self.negative_prompt
