"""What a run says and does about the concepts that its detector found, settled before training."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.concepts.base import Detector, NoDetector
from shortcut_lightning.concepts.erasing import Captioner, Erasing
from shortcut_lightning.data.lengths import Worded, refuse_lost_subject
from shortcut_lightning.data.stages import settle_contaminated
from shortcut_lightning.data.training import usual_boxes
from shortcut_lightning.data.wording import Wording

log = logging.getLogger(__name__)


class Settled(NamedTuple):
    """Who writes prompts with concepts, what is avoided, and what is left to train on."""

    captioner: Captioner
    negative: str  # prompt of the tuned arm
    trained_on: list[Example]
    boxes: list[list[ConceptBox]]


def settled(
    erasing: Erasing,
    wording: Wording,
    examples: list[Example],
    boxes: list[list[ConceptBox]],
    *,
    side: int,
    flips: bool,
) -> Settled:
    """Settles what is said about the concepts, then takes contaminated images away.

    Args:
        erasing: What is wanted.
        wording: The strings of the run, and what the text encoder takes.
        examples: What would be trained on.
        boxes: What was found in each.
        side: Of a training image in pixels.
        flips: Whether training mirrors.

    Raises ValueError where no image is left, and where the subject's name would be cut off.
    """
    prompts, captions, room, _ = wording
    captioner = Captioner(erasing, prompts, room.count, room.length)
    labels = {box.label for image in boxes for box in image}
    shown = [
        seen
        for example, found in zip(examples, boxes, strict=True)
        for seen in usual_boxes(found, example.image, side, flips)
    ]
    negative = captioner.negative(labels, shown)
    examples, boxes = settle_contaminated(examples, boxes, erasing.contaminated)
    worded = _worded(captioner, [*map(wording.latest, examples)], boxes)
    # A large concept's places alone may fill a small text encoder.
    fewer = ", or let a concept have fewer words of places (data.erasing.max_bins)"
    besides = fewer if erasing.caption == "geometry" else ""
    refuse_lost_subject(prompts.subject, worded, room, captions.shuffle, besides)
    for what, count in sorted(captioner.usage.items()):
        if count:
            log.warning("Captions of %d images: %s %d times", len(boxes), what, count)
    return Settled(captioner, negative, examples, boxes)


def in_vain(erasing: Erasing, detector: Detector, images: int, avoided: str) -> str:
    """What to say where no concept was found in `images` pictures; "" where none was asked for.

    Args:
        erasing: What is wanted.
        detector: Who looked.
        images: In how many.
        avoided: The negative prompt of the tuned arm, for safe guidance.
    """
    keys = ["caption", "alpha", "contaminated", "negative"]
    if erasing.safety and avoided:  # by words that were typed, as configs/erasing/sld_*.yaml say
        keys.remove("negative")
    asked = [f"data.erasing.{k}" for k in keys if getattr(erasing, k) != getattr(Erasing(), k)]
    if not asked:
        return ""
    who = "not set" if isinstance(detector, NoDetector) else type(detector).__name__
    mute = ", and data.erasing.safety has no words to avoid" if not avoided else ""
    return (
        f"No concept was found in any of {images} images (data.detector is {who}), so "
        f"{', '.join(asked)} changed nothing{mute if erasing.safety else ''}."
    )


def _worded(
    captioner: Captioner, examples: Sequence[Example], boxes: Sequence[list[ConceptBox]]
) -> list[Worded]:
    return [
        Worded(example.name, example.prompt, captioner.instance(example.prompt, found))
        for example, found in zip(examples, boxes, strict=True)
    ]
