"""Perturb, purify, detect: each once, on all images, before anything is trained.

Images are stacked by shape, so a stage sees (N, 3, H, W). Results are cached under the pixels, the
stage with its arguments, the seed and the model's weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.attacks.base import Attack, NoAttack
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.data.cache import Cache
from shortcut_lightning.freezing import on_device
from shortcut_lightning.purifiers.base import Purifier


def by_shape(images: Sequence[Tensor]) -> list[list[int]]:
    """Indices of images of equal shape, groups in order of their first image."""
    groups: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    return list(groups.values())


def perturb(
    examples: list[Example], attack: Attack, backbone: Backbone, cache: Cache, device: torch.device
) -> list[Example]:
    """The examples as the attack leaves them."""
    if isinstance(attack, NoAttack):
        return examples
    return _changed("perturb", examples, attack, backbone, cache, device)


def purify(
    examples: list[Example],
    purifiers: Sequence[Purifier],
    backbone: Backbone,
    cache: Cache,
    device: torch.device,
) -> list[Example]:
    """The examples as the chain of purifiers leaves them."""
    for number, purifier in enumerate(purifiers):
        examples = _changed(f"purify-{number}", examples, purifier, backbone, cache, device)
    return examples


def detect(
    examples: list[Example], detector: Detector, device: torch.device
) -> list[list[ConceptBox]]:
    """One list of boxes per example. Detectors are quick beside training, so nothing is cached."""
    boxes: list[list[ConceptBox]] = [[] for _ in examples]
    for group in by_shape([example.image for example in examples]):
        images = torch.stack([examples[index].image for index in group]).to(device)
        names = [examples[index].name for index in group]
        for index, found in zip(group, detector.detect(images, names), strict=True):
            boxes[index] = found
    return boxes


def _changed(
    stage: str,
    examples: list[Example],
    change: Attack | Purifier,
    backbone: Backbone,
    cache: Cache,
    device: torch.device,
) -> list[Example]:
    images = [example.image for example in examples]
    prompts = [example.prompt for example in examples]
    seed = draws.run_seed()

    def make() -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        with on_device(backbone, device):
            for number, group in enumerate(by_shape(images)):
                changed = change(
                    torch.stack([images[index] for index in group]).to(device),
                    backbone,
                    [prompts[index] for index in group],
                    generator=draws.generator(seed, stage, number),
                )
                levels = (changed * 255).round().to(torch.uint8).cpu()
                made |= {str(index): level for index, level in zip(group, levels, strict=True)}
        return made

    entry = cache.get(
        stage.split("-")[0],
        make,
        stage=stage,
        change=change,
        images=images,
        prompts=prompts,
        seed=seed,
        model=backbone.fingerprint(),
    )
    return [
        example._replace(image=entry[str(index)].float() / 255)
        for index, example in enumerate(examples)
    ]
