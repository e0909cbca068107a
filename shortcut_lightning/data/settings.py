"""Settings of the data module that belong together and are typed rarely, by who decides on them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.data.evaluation import read_prompts
from shortcut_lightning.prompts import Prompts
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Between, Count, Levels, Seed, ranged


@ranged
@dataclass(frozen=True)
class Sampled:
    """What is sampled, in validation, `test` and `predict`.

    Args:
        prompts: Sampled in `test`; empty for the instance prompt. `{instance}` and `{class}` stand
            for the instance and the class prompt, here and in what `predict` samples:
            "{instance} on the beach".
        images_per_prompt: Images of each prompt in `test` and `predict`.
        batch_size: Images sampled at a time, in validation, `test` and `predict`.
        negative_prompt: What sampled images should not show.
        seed: Seed of the first sampled image; image i has this plus i.
        base: Sample the untouched model too, for comparison.
        predict_prompts: Sampled in `predict`.
        predict_prompts_file: A text file of more of them, one a line.
    """

    prompts: Sequence[str] = ()
    images_per_prompt: Count = 8
    batch_size: Count = 8
    negative_prompt: str = ""
    seed: Seed = 0
    base: bool = True
    predict_prompts: Sequence[str] = ()
    predict_prompts_file: str = ""

    @property
    def arms(self) -> tuple[str, ...]:
        """Which models are sampled in `test`."""
        return ("tuned", "base") if self.base else ("tuned",)

    def predicted(self, prompts: Prompts) -> list[str]:
        """What `predict` samples. Raises ValueError for nothing, and for a file that is none."""
        typed = [*self.predict_prompts, *read_prompts(self.predict_prompts_file)]
        texts = [prompts.evaluated(text) for text in typed]
        if not texts:
            raise ValueError(
                "Nothing to sample: set data.evaluation.predict_prompts to a list of prompts or "
                "data.evaluation.predict_prompts_file to a text file with one prompt a line."
            )
        return texts


@dataclass(frozen=True)
class Copy:
    """The published photographs once more, cleaned in another way, or not at all.

    Args:
        purifiers: What cleans this copy, one after the other.
    """

    purifiers: Sequence[Purifier] = ()


@ranged
@dataclass(frozen=True)
class Passes:
    """How training goes through the photographs.

    Args:
        repeats: Passes over the instance images in an epoch. Training is best measured in steps
            (trainer.max_steps); an epoch of one pass over five images would be too short.
        picture_repeats: How often a picture is seen in a pass, by its file name or a pattern of it
            (`{close-up-*.jpg: 3}`); once where nothing is said.
        center_crop: Crop the middle (on here, off in diffusers, so that stages, caches and metrics
            all see what is trained on); off draws the crop anew each time.
        bucket_ratio: Longer side over shorter side of a bucket, at most.
        random_flip: Mirror half of the examples; wrong for faces and text.
        num_workers: Processes that prepare batches; 0 is best unless images are large.
        copies: Further copies of the published photographs to learn from, beside those that
            `data.purifiers` cleans: other purifiers fail elsewhere, and an uncleaned copy has what
            they took away (`data.decoupling.purified_too` says whether the noise words are about it
            alone). Not in arXiv 2406.18944.
        agreement: Weigh places in the loss by how much the copies of a photograph agree there
            (`data/agreement.py`): the difference in /255 at which a weight is 1/e; 0 for none.
    """

    repeats: Count = 100
    picture_repeats: dict[str, Count] = field(default_factory=dict)
    center_crop: bool = True
    bucket_ratio: Annotated[float, Between(1, 4, note="longer over shorter side")] = 2.0
    random_flip: bool = False
    num_workers: Annotated[int, Between(0, 1024)] = 0
    copies: Sequence[Copy] = ()
    agreement: Annotated[float, Between(0, 255, note="in /255; 0 for none")] = 0.0


@ranged
@dataclass(frozen=True)
class NoisyClassImages:
    """Copies of class images that are called noisy, so that the noise words of decoupling are said
    about others than the subject too and cannot become its name. Not in arXiv 2406.18944.

    Args:
        attacks: What may have been done to the instance images, done to the copies, by turns; they
            go through `data.purifiers` as well.
        transplant: The same where the attack is not known: what these purifiers take off the
            published photographs is put on the copies (`data/transplant.py`).
        transplant_limit: At most so much of it in a pixel, in /255.
        count: How many class images have such a copy; 0 for all.
    """

    attacks: Sequence[Attack] = ()
    transplant: Sequence[Purifier] = ()
    transplant_limit: Annotated[float, Levels(0, 255, open="least")] = 16.0
    count: Annotated[int, Between(0, note="0 for all")] = 0

    @property
    def wanted(self) -> bool:
        """Whether there are any."""
        return bool(self.attacks or self.transplant)
