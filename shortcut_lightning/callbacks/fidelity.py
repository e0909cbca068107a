"""How far protection and purification moved the photographs that are trained on."""

from collections.abc import Sequence

import torch

from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.metrics.fidelity import fidelity


class StageFidelity(EvaluationCallback):
    """`protect_linf_255`, `protect_psnr` and `protect_ssim` of the perturbed images against the
    clean ones, and `purified_...` of what is trained on; on the tuned arm. A stage that does
    nothing has none."""

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        given = getattr(datamodule, "given", [])
        if samples.arm != "tuned" or not given:
            return {}
        numbers = _changes("protect", getattr(datamodule, "perturbed", []), given)
        if getattr(datamodule, "purifiers", ()):
            numbers |= _changes("purified", getattr(datamodule, "trained_on", []), given)
        return numbers


def _changes(name: str, images: Sequence[Example], given: Sequence[Example]) -> dict[str, Estimate]:
    if len(images) != len(given):  # erasing may have dropped some
        return {}
    pairs = [(a.image, b.image) for a, b in zip(images, given, strict=True)]
    if all(torch.equal(a, b) for a, b in pairs):
        return {}
    found = [fidelity(a, b) for a, b in pairs]
    return {
        f"{name}_{key}": mean_estimate(torch.tensor([getattr(one, key) for one in found]))
        for key in ("linf_255", "psnr", "ssim")
    }
