"""Whether a photograph carries a protection: a perturbation that is to spoil what is learned of it.

A small network on `noise_statistics.py`, trained on the house's attacks (`screening/`). What
it finds and what it calls protected by mistake is on its card, `configs/screening/README.md`; the
numbers that matter most travel with its weights.
"""

import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shortcut_lightning import weights
from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.noise_statistics import LEAST, statistics
from shortcut_lightning.pocket import WEIGHTS
from shortcut_lightning.ranges import Between

LABEL = "protection"
POCKET_PROTECTION = WEIGHTS / "protection"
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)  # of false alarms, at which thresholds are kept
_FLAT = 2 / 255  # a row or column that varies less is of a border
_SMEAR = 8  # pixels beside a border, into which JPEG smears it
_GREY = 0.5 / 255  # channels that differ less on average show no colour
_CLIP = 4.0  # standard deviations: what lies further off is another kind of picture, not more so


class ProtectionNetwork(nn.Module):
    """Statistics of a picture to the log-odds that it is protected, if half of all pictures were.

    Attributes:
        thresholds: (5,) log-odds that ordinary pictures of training people exceed at `RATES`.
    """

    mean: Tensor
    scale: Tensor
    thresholds: Tensor

    def __init__(self, features: int, hidden: int) -> None:
        """`hidden` units between `features` statistics and the log-odds."""
        super().__init__()
        self.config = {"features": features, "hidden": hidden}
        self.inner = nn.Linear(features, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("thresholds", torch.zeros(len(RATES)))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], no side under 32 pixels -> (N,) log-odds."""
        return self.of_statistics(statistics(images))

    def of_statistics(self, numbers: Tensor) -> Tensor:
        """(N, F) -> (N,)."""
        found: Tensor = self.outer(self.inner(self.standard(numbers)).relu())[:, 0]
        return found

    def standard(self, numbers: Tensor) -> Tensor:
        """Statistics in standard deviations of the training's."""
        return ((numbers - self.mean) / self.scale).clamp(-_CLIP, _CLIP)

    def threshold(self, false_alarms: float) -> float:
        """Log-odds that this share of ordinary pictures exceeds; between `RATES` it is drawn
        straight over the logarithm of the share."""
        at = [math.log(rate) for rate in RATES]
        place = sum(rate < false_alarms for rate in RATES)
        place = min(max(place, 1), len(RATES) - 1)
        left, right = self.thresholds[place - 1 : place + 1].tolist()
        part = (math.log(false_alarms) - at[place - 1]) / (at[place] - at[place - 1])
        return float(left + part * (right - left))

    def save(self, folder: Path) -> None:
        """Writes `config.json` and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", "utf-8")
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")


def judged(image: Tensor) -> Tensor | None:
    """What is judged of (3, H, W) in [0, 1]: all but a border of one colour, which averages would
    take for a picture without any noise; None where that is too small, or has no colour."""
    for along, across in ((1, 2), (2, 1)):
        varies = (image.amax(across) - image.amin(across)).amax(0) > _FLAT
        start, end = _inside(varies.nonzero().flatten().tolist(), image.shape[along])
        image = image.narrow(along, start, end - start)
    colour = (image.amax(0) - image.amin(0)).mean()
    return None if min(image.shape[-2:]) < LEAST or colour <= _GREY else image


def _inside(places: Sequence[int], length: int) -> tuple[int, int]:
    """From where to where on a side is no border, the places that vary being given."""
    if not places:
        return 0, length
    start, end = places[0], places[-1] + 1
    inner = start + _SMEAR * (start > 0), end - _SMEAR * (end < length)
    return inner if inner[1] - inner[0] >= LEAST else (start, end)


class ErrorRates(NamedTuple):
    """What is known of the detector at one rate of false alarms, from its card."""

    rate: float  # of false alarms on training people
    found: float  # share of protected pictures, of attacks that training did not see
    least: float  # the same of the attack it finds least
    least_attack: str
    attacks: int
    found_photographs: float | None  # share of protected real photographs, where there were any
    alarms: float  # share of ordinary pictures of other people called protected
    edited: float  # the same where they were sharpened, denoised, upscaled or grainy
    photographs: float  # the same of real photographs


class ProtectionDetector(Detector):
    """Says whether a photograph looks protected; where, it cannot say. The score is the probability
    that it is, if half of all photographs were.

    Judges a photograph at its own size, without a border of one colour. One with a side under 32
    pixels is not judged, nor one without colour, where half of what is looked at is missing.

    Args:
        path: Folder of a trained one; `pocket` is the one that comes with the package.
        false_alarms: Share of ordinary photographs that may be called protected. More finds more.
    """

    def __init__(
        self,
        path: str = "pocket",
        false_alarms: Annotated[float, Between(0.01, 0.2)] = 0.05,
    ) -> None:
        self.path = path
        self.false_alarms = false_alarms

    @property
    def folder(self) -> Path:
        """Of the weights."""
        return POCKET_PROTECTION if self.path == "pocket" else Path(self.path).expanduser()

    @cached_property
    def network(self) -> ProtectionNetwork:
        """The network, loaded at first use."""
        if not (self.folder / "config.json").is_file():
            raise ValueError(
                f"No trained detector of protections in '{self.path}' (detector.path): expected "
                "config.json and model.safetensors, as python -m shortcut_lightning.screening.fit "
                "writes."
            )
        network: ProtectionNetwork = weights.build(ProtectionNetwork, self.folder, "detector.path")
        return network.eval().requires_grad_(False)

    @property
    def version(self) -> str:
        """See `Detector`: of the weights, which other ones may replace in the same folder."""
        return float(self.network.inner.weight.double().sum()).hex()

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N,) log-odds; NaN where a picture is not judged."""
        found = [self._score(image) for image in images.float()]
        return torch.stack(found) if found else torch.empty(0)

    def _score(self, image: Tensor) -> Tensor:
        if (seen := judged(image)) is None:
            return torch.tensor(math.nan)
        found: Tensor = self.network.to(image.device)(seen[None])[0]
        return found.cpu()

    @property
    def threshold(self) -> float:
        """Log-odds above which a photograph is called protected."""
        return self.network.threshold(self.false_alarms)

    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        return [
            [ConceptBox(LABEL, float(score.sigmoid()), None)] if score > self.threshold else []
            for score in self.scores(images)
        ]

    def error_rates(self) -> ErrorRates | None:
        """From the card beside the weights, at the rate nearest to `false_alarms`; None without."""
        file = self.folder / "card.json"
        if not file.is_file():
            return None
        card = json.loads(file.read_text("utf-8"))
        rate = min(card, key=lambda each: abs(math.log(float(each) / self.false_alarms)))
        return ErrorRates(**card[rate])
