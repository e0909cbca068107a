"""What is said about a run's pictures, and whether its text encoder takes all of it."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from shortcut_lightning.batch import Example
from shortcut_lightning.captions import Captions
from shortcut_lightning.data.lengths import Room, Worded, refuse_lost_subject, too_long
from shortcut_lightning.prompts import Prompts


class Wording(NamedTuple):
    """A run's words, the room that a text encoder has for them, and who is told of what is cut."""

    prompts: Prompts
    captions: Captions
    room: Room
    warn: Callable[[str], None]

    def said(self, examples: list[Example]) -> list[Example]:
        """The examples with what the template of captions makes of theirs."""
        template = self.captions.template
        return [e._replace(prompt=self.prompts.said(template, e.prompt)) for e in examples]

    def latest(self, example: Example) -> Example:
        """The example with that of its captions which names the subject last."""
        caption = self.captions.latest(example.prompt, self.prompts.subject)
        return example._replace(prompt=caption)

    def worded(self, example: Example) -> Example:
        """The example with the prompt that it is trained on."""
        if not self.prompts.decoupling.training:
            return example._replace(prompt=self.prompts.instance(example.prompt))
        # The text encoder would cut the noise words, which stand at the end.
        fitted = self.prompts.fitted(example.prompt, "", self.room.fits, example.purified)
        return example._replace(prompt=fitted)

    def priors(
        self, class_images: Sequence[Example], noisy_copies: Sequence[Example]
    ) -> list[Example]:
        """Class images and their noisy copies with the prompts of the prior loss."""
        return [
            example._replace(prompt=self.prompts.prior(noisy))
            for examples, noisy in ((class_images, False), (noisy_copies, True))
            for example in examples
        ]

    def name_cut(self, what: str, texts: Iterable[str]) -> None:
        """Warns of texts that are cut off; `what` names their key."""
        if sentence := too_long(what, dict.fromkeys(texts), self.room):
            self.warn(sentence)

    def check_training(self, given: list[Example], own_captions: bool, with_priors: bool) -> None:
        """Names prompts that are cut off. Raises ValueError where the subject's name is."""
        said = self.said(given)
        worded = [Worded(e.name, e.prompt, self.worded(e).prompt) for e in map(self.latest, said)]
        refuse_lost_subject(self.prompts.subject, worded, self.room, self.captions.shuffle)
        what = "captions (data.use_captions)" if own_captions else "data.instance_prompt"
        self.name_cut(what, [self.prompts.instance(each.prompt) for each in said])
        if with_priors:
            priors = [self.prompts.prior(noisy) for noisy in (False, True)]
            self.name_cut("data.class_prompt", priors)

    def check_evaluation(self, texts: Sequence[str]) -> None:
        """Names what is cut off of what is sampled."""
        self.name_cut("data.evaluation.prompts", texts)
        if negative := self.prompts.negative():
            self.name_cut("data.evaluation.negative_prompt", [negative])

    def check_subject(self, texts: Sequence[str]) -> None:
        """Warns of prompts of the evaluation that are about somebody else."""
        for prompt in self.prompts.strangers(texts):
            self.warn(
                f"The evaluation asks for '{prompt}', which does not name the subject of "
                f"'{self.prompts.instance_prompt}': its numbers are about somebody else "
                "(data.evaluation.prompts; '{instance}' in one stands for the instance prompt)."
            )

    def check_suffix(self, texts: Sequence[str]) -> None:
        """Warns of prompts that leave no room for the suffix of decoupling."""
        prompts = self.prompts
        if prompts.decoupling.sampling and not all(
            self.room.fits(prompts.sampling(text)) for text in texts
        ):
            self.warn(
                "Some prompts leave no room for data.decoupling.sampling_suffix: the text encoder "
                f"takes {self.room.length} words. Shorten them."
            )
