"""How many of a run's photographs look protected, for its report: a guess with its error rates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks.stages import stages_of
from shortcut_lightning.concepts.protection import ErrorRates, ProtectionDetector
from shortcut_lightning.files.images import load_image, shrunk

_LONGEST = 4096  # pixels at which a photograph is looked at, as `data.detection_side` has it
_AFTER = {
    "given": "as given",
    "perturbed": "after the attack",
    "marked": "with the marks",
    "purified": "after the purifiers",
}


@dataclass(frozen=True)
class Screened:
    """What was found."""

    photographs: int  # judged; those that are small or without colour are not
    protected: Mapping[str, int]  # by stage, of those that changed something
    rates: ErrorRates

    def told(self) -> str:
        """A sentence for the report."""
        first, *others = ((_AFTER[stage], count) for stage, count in self.protected.items())
        given = f" {first[0]}" if others else ""
        later = "".join(f", {count} {after}" for after, count in others)
        rates = self.rates
        found = rates.found_photographs
        real = "" if found is None else f", {found:.0%} of real photographs"
        return (
            f"{first[1]} of {self.photographs} photographs look protected{given}{later} (a guess: "
            f"at {rates.rate:.0%} false alarms it finds {rates.found:.0%} of what attacks unknown "
            f"to it have protected, {rates.least:.0%} of {rates.least_attack}{real}, and takes "
            f"{rates.photographs:.0%} of clean real photographs for protected)."
        )

    def as_json(self) -> dict[str, Any]:
        """For `report.json`."""
        return {
            "photographs": self.photographs,
            "look protected": dict(self.protected),
            "error rates": self.rates._asdict(),
        }


def screen(datamodule: Any) -> Screened | None:
    """Looks at the photographs of a data module, as given and after each stage; changes nothing.
    None where there are none to be judged, or nothing is known about the detector's errors."""
    detector = ProtectionDetector()
    rates = detector.error_rates()
    if rates is None:
        return None
    found, count = {}, 0
    for stage, examples in stages_of(datamodule).items():
        scores = [float(detector.scores(_seen(each)[None])) for each in examples]
        known = [score for score in scores if not math.isnan(score)]
        if not known:
            return None
        count = count or len(known)
        found[stage] = sum(score > detector.threshold for score in known)
    return Screened(count, found, rates)


def _seen(example: Example) -> Tensor:
    """A photograph that no stage has changed in its file, since shrinking hides what is sought."""
    if example.photograph is None:
        return example.image
    return shrunk(load_image(example.photograph), _LONGEST)
