"""Perturb, purify, detect: each once, on all images, before anything is trained.

Images are stacked by shape, so a stage sees (N, 3, H, W); one that changes each image for itself
sees a few at a time, which bounds its memory. Results are cached under the pixels, the stage with
its arguments, the seed, the model's weights, those of the built-in networks, and the code that
decides what the stage does.
"""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.attacks.base import Attack, NoAttack, SoundnessWarning
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.cluster import InProcess, Pool
from shortcut_lightning.concepts.base import Detector, NoDetector
from shortcut_lightning.concepts.inpainting import inpaint
from shortcut_lightning.data import looking
from shortcut_lightning.data.works import Changing, Looking, Photograph, Pictures, Stack
from shortcut_lightning.files.cache import Cache
from shortcut_lightning.files.code import PACKAGE, code_behind, deciding_weights, hash_of, kinds_in
from shortcut_lightning.photographs import by_shape
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.oracle import Oracle

log = logging.getLogger(__name__)

_AT_A_TIME = 32  # images a detector sees at a time
LOOKED_AT = 4096  # pixels of a photograph's longer side, where nothing else is said
_TOLD = "doubts"  # where an entry of the cache keeps the warnings of what made it


def perturb(
    examples: list[Example],
    attack: Attack,
    backbone: Backbone,
    cache: Cache,
    device: torch.device,
    batch_size: int,
    warn: Callable[[str], None] = log.warning,
    pool: Pool = InProcess(),  # noqa: B008
    whose: str = "",
) -> list[Example]:
    """The examples as the attack leaves them, at most `batch_size` of them at a time unless it
    works on the whole set. `warn` is told why its work is not to be trusted, also where that work
    is found in the cache. An attack that was interrupted goes on. `pool` does the work. Other than
    a run's photographs are named by `whose`, or they would be given the very same noise."""
    if isinstance(attack, NoAttack):
        return examples
    size = len(examples) if attack.whole_set else batch_size
    stage = f"perturb-{whose}" if whose else "perturb"
    return _changed(stage, examples, attack, backbone, cache, device, size, warn, pool)


def purify(
    examples: list[Example],
    purifiers: Sequence[Purifier],
    backbone: Backbone,
    cache: Cache,
    device: torch.device,
    batch_size: int,
    given: Sequence[Example] = (),
    pool: Pool = InProcess(),  # noqa: B008
    whose: str = "",
) -> list[Example]:
    """The examples as the chain of purifiers leaves them, at most `batch_size` at a time; `given`
    is what they were before any perturbation, for the `Oracle`. `pool` does the work; `whose` as in
    `perturb`."""
    for number, purifier in enumerate(purifiers):
        if isinstance(purifier, Oracle) and given:
            examples = list(given)
            continue
        stage = f"purify-{whose}-{number}" if whose else f"purify-{number}"
        examples = _changed(
            stage, examples, purifier, backbone, cache, device, batch_size, pool=pool
        )
    return [each._replace(purified=bool(purifiers)) for each in examples]


class Steps(NamedTuple):
    """The model, the place and the pace with which a run's stages work."""

    backbone: Backbone
    cache: Cache
    device: torch.device
    batch_size: int
    warn: Callable[[str], None]
    subject: str = ""  # its name where there are others; a part of every `whose`

    def perturb(self, examples: list[Example], attack: Attack, whose: str = "") -> list[Example]:
        """See `perturb`."""
        return perturb(examples, attack, *self[:5], whose=self._whose(whose))

    def purify(
        self,
        examples: list[Example],
        purifiers: Sequence[Purifier],
        given: Sequence[Example] = (),
        whose: str = "",
    ) -> list[Example]:
        """See `purify`."""
        return purify(examples, purifiers, *self[:4], given, whose=self._whose(whose))

    def _whose(self, own: str) -> str:
        return "-".join(each for each in (self.subject, own) if each)


def detect(
    examples: list[Example],
    detector: Detector,
    cache: Cache,
    device: torch.device,
    side: int = LOOKED_AT,
    pool: Pool = InProcess(),  # noqa: B008
) -> list[list[ConceptBox]]:
    """One list of boxes per example, in the coordinates of its image. Photographs that no stage has
    changed are looked at with up to `side` pixels of their longer side (`looking.py`). `pool` does
    the work."""
    if isinstance(detector, NoDetector):
        return [[] for _ in examples]
    files = looking.photographs(examples, detector)
    key: dict[str, Any] = {
        "detector": detector,
        "images": [example.image for example in examples],
        "names": [example.name for example in examples],
        **_deciding(detector, Looking),
    }
    if any(files):
        key |= {"photographs": files, "side": side}

    def make() -> dict[str, Tensor]:
        return {"boxes": _as_bytes(_detect(examples, files, Looking(detector, side), device, pool))}

    entry = cache.get("detect", make, **key)
    rows = _from_bytes(entry["boxes"])
    return [
        [ConceptBox(label, score, xyxy and tuple(xyxy)) for label, score, xyxy in image]
        for image in rows
    ]


def _detect(
    examples: list[Example],
    files: list[Path | None],
    look: Looking,
    device: torch.device,
    pool: Pool,
) -> list[list[ConceptBox]]:
    boxes: list[list[ConceptBox]] = [[] for _ in examples]
    groups = [[index] for index, file in enumerate(files) if file is not None]
    others = [index for index, file in enumerate(files) if file is None]
    for shape in by_shape([examples[index].image for index in others]):
        group = [others[position] for position in shape]
        groups += [group[i : i + _AT_A_TIME] for i in range(0, len(group), _AT_A_TIME)]

    def part(group: list[int]) -> Stack | Photograph:
        if (file := files[group[0]]) is not None:
            image = examples[group[0]].image
            return Photograph(file, examples[group[0]].name, (image.shape[-2], image.shape[-1]))
        images = torch.stack([examples[index].image for index in group])
        return Stack(images, [examples[index].name for index in group])

    for number, found in pool.map(look, map(part, groups), device):
        for index, seen in zip(groups[number], found, strict=True):
            boxes[index] = seen
    return boxes


def settle_contaminated(
    examples: list[Example],
    boxes: list[list[ConceptBox]],
    how: Literal["keep", "drop", "inpaint"],
) -> tuple[list[Example], list[list[ConceptBox]]]:
    """Keeps images with a concept, drops them, or paints the concept over.

    Painting over needs a place; an image whose concept has none stays as it is.
    Raises ValueError when no image is left.
    """
    if how == "keep":
        return examples, boxes
    if how == "drop":
        kept = [i for i, found in enumerate(boxes) if not found]
        if not kept:
            raise ValueError(
                f"The detector found a concept in all {len(examples)} images, and "
                "data.erasing.contaminated is 'drop': nothing is left to train on. Set it to "
                "'keep' or 'inpaint'."
            )
        return [examples[i] for i in kept], [boxes[i] for i in kept]
    painted = [
        example._replace(image=inpaint(example.image, found), photograph=None)
        for example, found in zip(examples, boxes, strict=True)
    ]
    return painted, [[box for box in found if box.xyxy is None] for found in boxes]


def _changed(
    stage: str,
    examples: list[Example],
    change: Attack | Purifier,
    backbone: Backbone,
    cache: Cache,
    device: torch.device,
    batch_size: int,
    warn: Callable[[str], None] = log.warning,
    pool: Pool = InProcess(),  # noqa: B008
) -> list[Example]:
    images = [example.image for example in examples]
    prompts = [example.prompt for example in examples]
    seed, name = draws.run_seed(), stage.split("-")[0]
    key = {
        "stage": stage,
        "change": change,
        "images": images,
        "prompts": prompts,
        "seed": seed,
        "model": backbone.fingerprint(),
        **_deciding(change, type(backbone), Changing),
    }
    groups = by_shape(images)
    parts = [g[i : i + batch_size] for g in groups for i in range(0, len(g), batch_size)]
    if len(parts) > len(groups):  # else the size of a batch changes nothing
        key["batch_size"] = batch_size
    half_done = cache.path(name, **key).with_suffix(".progress")

    def make() -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        work = Changing(change, backbone, seed, stage, half_done)
        handed = (
            Pictures(number, torch.stack([images[i] for i in part]), [prompts[i] for i in part])
            for number, part in enumerate(parts)
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SoundnessWarning)
            for number, levels in pool.map(work, handed, device):
                made |= {str(i): each for i, each in zip(parts[number], levels, strict=True)}
        for one in caught:
            if not isinstance(one.message, SoundnessWarning):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        told = [str(one.message) for one in caught if isinstance(one.message, SoundnessWarning)]
        return made | {_TOLD: _as_bytes(list(dict.fromkeys(told)))}

    entry = cache.get(name, make, **key)
    shutil.rmtree(half_done, ignore_errors=True)
    for sentence in _from_bytes(entry[_TOLD]) if _TOLD in entry else ():
        warn(sentence)
    return [
        example._replace(image=entry[str(index)].float() / 255, photograph=None)
        for index, example in enumerate(examples)
    ]


def _deciding(stage: object, *kinds: type) -> dict[str, str | list[str]]:
    """What a result depends on beside arguments and pictures: code, that of this module too, and
    weights of which neither the stage nor the model's fingerprint says anything."""
    own = hash_of(PACKAGE, (Path(__file__),))
    return {"code": [code_behind({*kinds_in(stage), *kinds}), own], "weights": deciding_weights()}


def _as_bytes(value: Any) -> Tensor:
    """Plain types as a tensor that the cache can keep."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _from_bytes(tensor: Tensor) -> Any:
    return json.loads(tensor.numpy().tobytes())
