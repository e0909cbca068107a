"""How far protection and purification moved the photographs that are trained on."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.callbacks.stages import differ
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.metrics.fidelity import fidelity
from shortcut_lightning.metrics.perceptual import lpips


class StageFidelity(EvaluationCallback):
    """`protect_linf_255`, `protect_psnr` and `protect_ssim` of the perturbed images against the
    clean ones, and `purified_...` of what is trained on; on the tuned arm, over the photographs
    that are not as they were. A stage that does nothing has none.

    Args:
        lpips: Also `protect_lpips_<network>` by this network, where torchvision and its weights
            can be had; empty leaves it out.
    """

    def __init__(self, lpips: Literal["", "alex", "vgg", "squeeze"] = "") -> None:
        self.lpips = lpips
        self._different: Callable[[Tensor, Tensor], Tensor] | None = None

    def load(self) -> None:
        if self.lpips:
            what = f"StageFidelity.lpips '{self.lpips}'"
            self._different = lpips(self.lpips, torch.device("cpu"), what)

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        given = getattr(datamodule, "given", [])
        if samples.arm != "tuned" or not given:
            return {}
        numbers = self._changes("protect", getattr(datamodule, "perturbed", []), given)
        if getattr(datamodule, "purifiers", ()):
            numbers |= self._changes("purified", getattr(datamodule, "trained_on", []), given)
        return numbers

    @torch.no_grad()
    def _changes(
        self, name: str, images: Sequence[Example], given: Sequence[Example]
    ) -> dict[str, Estimate]:
        if len(images) != len(given):  # erasing may have dropped some
            return {}
        pairs = [
            (a.image, b.image)
            for a, b in zip(images, given, strict=True)
            if differ(a.image, b.image)
        ]
        if not pairs:
            return {}
        found = [fidelity(a, b) for a, b in pairs]
        numbers = {
            f"{name}_{key}": mean_estimate(torch.tensor([getattr(one, key) for one in found]))
            for key in ("linf_255", "psnr", "ssim")
        }
        if self._different is not None:
            apart = torch.cat([self._different(a[None], b[None]) for a, b in pairs])
            numbers[f"{name}_lpips_{self.lpips}"] = mean_estimate(apart)
        return numbers
