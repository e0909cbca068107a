"""The one place where a caption, suffix or negative prompt is written.

The data module holds one `Prompts` and asks it for every string that reaches a text encoder, one
method per use. What an attack is told is the plain caption: a protector does not know how the
images will be trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile

from shortcut_lightning.ranges import NotNegative, Positive, ranged

# Words around a subject that do not name it.
_FRAME = ("a", "an", "the", "my", "photo", "picture", "image", "portrait", "painting", "of", "")


@ranged
@dataclass(frozen=True)
class Decoupling:
    """Contrastive decoupling learning (arXiv 2406.18944, section 4.3): words that take the blame.

    Instance images are called noisy and class images not, so that the noise of protected images is
    learned under the noise words; sampling then asks for an image without them. The three parts
    are three switches, because they do different things. The defaults do nothing; the texts are
    those of the authors' code, and `{noise}` stands for `noise` in each.

    Args:
        training: Add the suffixes to what instance and class images are trained with.
        sampling: Add the suffix to what the tuned model is sampled with.
        negative: Add `negative_prompt` to the tuned model's negative prompt.
        noise: The noise words. The first should be a rare one, as the subject's is.
        instance_suffix: Follows the caption of an instance image.
        purified_too: Call photographs noisy as well that purifiers have cleaned, as the paper does;
            false leaves the words to copies that are learnt uncleaned (`data.training.copies`).
        class_suffix: Follows the class prompt in the prior loss. The same as `instance_suffix` is
            the placebo, which contrasts nothing.
        class_images_too: Generate class images with that suffix as well.
        sampling_suffix: Follows a prompt in sampling.
        negative_prompt: What is named as not wanted.
        contrast: Weight of an explicit contrastive term beside the paper's loss, which wants the
            noise words to fit instance images better than the class images' suffix does, and class
            images the reverse (`losses/contrast.py`); 0 leaves it out. One more pass of the
            denoiser in each step.
        contrast_margin: By how much better, in units of the denoising error.
        base_too: Suffix and negative prompt for the untouched model as well, as the authors' code
            has it for all its comparisons.
    """

    training: bool = False
    sampling: bool = False
    negative: bool = False
    noise: str = "bhj noisy pattern"
    instance_suffix: str = ", {noise}"
    purified_too: bool = True
    class_suffix: str = ", without {noise}"
    class_images_too: bool = False
    sampling_suffix: str = ", without {noise}"
    negative_prompt: str = "noisy, lowres, artifact, pattern"
    contrast: NotNegative = 0.0
    contrast_margin: Positive = 0.01
    base_too: bool = False

    def __post_init__(self) -> None:
        if (self.training or self.sampling) and not self.noise.strip():
            raise ValueError(
                "data.decoupling.noise is empty; give words for the noise, such as 'bhj noisy "
                "pattern', or set data.decoupling.training and sampling to false."
            )
        if self.negative and not self.negative_prompt.strip():
            raise ValueError(
                "data.decoupling.negative is true, but data.decoupling.negative_prompt is empty."
            )
        if self.contrast > 0 and not (self.training and self.instance_suffix != self.class_suffix):
            raise ValueError(
                "data.decoupling.contrast needs data.decoupling.training and an instance_suffix "
                "that is not the class_suffix; otherwise there is nothing to contrast."
            )

        if self.contrast > 0 and not self.purified_too:
            raise ValueError(
                "data.decoupling.contrast wants words about every photograph: set "
                "data.decoupling.purified_too to true, or data.decoupling.contrast to 0."
            )

    def suffix(self, template: str, wanted: bool) -> str:
        """A template with the noise words in it; "" where it is not wanted."""
        return template.replace("{noise}", self.noise) if wanted else ""

    def concerns(self, arm: str) -> bool:
        """Whether what is done in sampling is done to this arm."""
        return arm != "base" or self.base_too


@dataclass(frozen=True)
class Prompts:
    """The strings of one run. `class_prompt` may stay empty without prior preservation."""

    instance_prompt: str
    class_prompt: str = ""
    negative_prompt: str = ""
    decoupling: Decoupling = Decoupling()

    def caption(self, text: str = "") -> str:
        """What is said about an instance image before any method adds to it: its own caption
        `text`, or the instance prompt where it has none."""
        return text or self.instance_prompt

    def said(self, template: str, caption: str) -> str:
        """What a template of `captions.py` makes of a caption."""
        return self.evaluated(template).replace("{caption}", caption)

    def instance(self, caption: str, concepts: str = "", purified: bool = False) -> str:
        """The prompt an instance image is trained with; `concepts` is a `concept_tail`."""
        words = ", ".join(part for part in (caption, concepts) if part)
        rule = self.decoupling
        noisy = rule.training and (rule.purified_too or not purified)
        return _with_suffix(words, rule.suffix(rule.instance_suffix, noisy))

    def fitted(
        self, caption: str, concepts: str, fits: Callable[[str], bool], purified: bool = False
    ) -> str:
        """`instance`, with as many words taken off the caption's end as it takes to fit. A text
        encoder would cut the end of the prompt instead, which is where the concepts are."""
        words = caption.split()
        while words and not fits(self.instance(" ".join(words), concepts, purified)):
            words.pop()
        return self.instance(" ".join(words), concepts, purified)

    def prior(self, noisy: bool = False) -> str:
        """The prompt a class image is trained with, in the prior loss; `noisy` for one that was
        perturbed as instance images are taken to be."""
        rule = self.decoupling
        suffix = rule.instance_suffix if noisy else rule.class_suffix
        return self.class_prompt + rule.suffix(suffix, rule.training)

    def contrasted(self, prompt: str) -> str:
        """A prompt of `instance` or `prior`, with the other suffix than its own."""
        rule = self.decoupling
        suffixes = {
            rule.suffix(each, rule.training) for each in (rule.instance_suffix, rule.class_suffix)
        }
        # One may be the tail of the other; the longer that fits is the prompt's own.
        own = max((each for each in suffixes if _stripped(prompt, each) is not None), key=len)
        (other,) = suffixes - {own}
        return _with_suffix(_stripped(prompt, own) or "", other)

    def evaluated(self, template: str) -> str:
        """A prompt of the evaluation or of a callback: `{instance}` stands for the instance prompt,
        `{class}` for the class prompt, `{subject}` for the words that name the subject, so that a
        recipe's prompts follow the subject."""
        text = template.replace("{instance}", self.instance_prompt)
        text = text.replace("{class}", self.class_prompt)
        return text.replace("{subject}", " ".join(self._subject_words))

    def strangers(self, prompts: Sequence[str]) -> list[str]:
        """Those that ask for somebody else: without the identifier (the words that the instance
        prompt has and the class prompt has not) or without the class (its last word). None where
        the two prompts do not tell what the identifier is."""
        instance, kind = words_of(self.instance_prompt), words_of(self.class_prompt)
        if not kind or not set(instance) - set(kind):
            return []
        needed = {*instance} - {*kind} | {kind[-1]} & {*instance}
        return [prompt for prompt in prompts if not needed <= {*words_of(prompt)}]

    @property
    def subject(self) -> set[str]:
        """The words that name the subject: the first that the instance prompt has and the class
        prompt has not, with those that follow it directly; without a class prompt the first that
        is no frame for a subject."""
        return {*self._subject_words}

    @property
    def _subject_words(self) -> list[str]:
        known = {*words_of(self.class_prompt), *_FRAME}
        words = words_of(self.instance_prompt)
        row = list(dropwhile(known.__contains__, words))
        if not self.class_prompt:
            return row[:1]
        return list(takewhile(lambda word: word not in known, row))

    def class_image(self) -> str:
        """The prompt class images are generated with."""
        return self.prior() if self.decoupling.class_images_too else self.class_prompt

    def held_out(self, caption: str) -> str:
        """What is said about a clean image of the subject in the validation loss: what the tuned
        model is asked with, since the image has no noise."""
        return self.sampling(caption)

    def sampling(self, prompt: str, arm: str = "tuned") -> str:
        """The prompt an image of the tuned or the base model is sampled with."""
        rule = self.decoupling
        return prompt + rule.suffix(rule.sampling_suffix, rule.sampling and rule.concerns(arm))

    def negative(self, concepts: str = "", arm: str = "tuned") -> str:
        """The negative prompt of sampling; `concepts` is a `concept_tail`, put first because text
        encoders cut the end."""
        rule = self.decoupling
        noise = rule.negative_prompt if rule.negative and rule.concerns(arm) else ""
        return ", ".join(part for part in (concepts, noise, self.negative_prompt) if part)


def purification(template: str, caption: str) -> str:
    """The prompt a purifier's diffusion model is given; `{caption}` stands for the caption."""
    return template.replace("{caption}", caption)


def location_token(number: int) -> str:
    """The word of an image's bin (GeoDiffusion's, arXiv 2306.04607)."""
    return f"<l{number}>"


def concept_tail(bins: Mapping[str, Sequence[int]]) -> str:
    """Concept names, each directly followed by its bins' words: `QR code<l6><l7> text<l1>`."""
    return " ".join(name + "".join(map(location_token, found)) for name, found in bins.items())


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation around them."""
    return [word.strip(".,;:!?").lower() for word in text.split()]


def _with_suffix(words: str, suffix: str) -> str:
    return words + suffix if words else suffix.lstrip(", ")


def _stripped(prompt: str, suffix: str) -> str | None:
    """The words that `_with_suffix` made the prompt of; None where it has another suffix."""
    if prompt == _with_suffix("", suffix):
        return ""
    return prompt.removesuffix(suffix) if prompt.endswith(suffix) else None
