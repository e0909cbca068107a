"""How much texture pictures have: the trace that learned perturbations leave."""

from abc import abstractmethod

import torch
from torch import Tensor

from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.metrics.high_frequency import high_frequency_share
from shortcut_lightning.metrics.texture import texture_level
from shortcut_lightning.ranges import CountOrNone, InnerShare


class _Texture(EvaluationCallback):
    """A number for each generated image, and on the tuned arm the references' beside it."""

    name: str

    @abstractmethod
    def of(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N,)."""

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        numbers = self.means(**{self.name: self.of(samples.images)})
        references = getattr(datamodule, "references", [])
        if references and samples.arm == "tuned":
            images = torch.stack([example.image for example in references])
            numbers[f"{self.name}_references"] = mean_estimate(self.of(images))
        return numbers


class HighFrequency(_Texture):
    """`high_frequency`: share of the generated images' energy in high frequencies, and on the
    tuned arm `high_frequency_references`, the same of the references. Edges count as well.

    Args:
        cutoff: Where high begins, as a share of the highest frequency.
    """

    name = "high_frequency"

    def __init__(self, cutoff: InnerShare = 0.5) -> None:
        self.cutoff = cutoff

    def of(self, images: Tensor) -> Tensor:
        return high_frequency_share(images, self.cutoff)


class TextureLevel(_Texture):
    """`texture`: the strength of texture in the smooth places of generated images, in levels of
    [0, 1], and on the tuned arm `texture_references`; see `metrics/texture.py`.

    Args:
        octave: How fine: 0 for the finest texture of the pictures, 1 for that of their halves.
    """

    name = "texture"

    def __init__(self, octave: CountOrNone = 1) -> None:
        self.octave = octave

    def of(self, images: Tensor) -> Tensor:
        return texture_level(images, self.octave)
