"""What a run was and what came out, as `report.json` and `report.html`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import yaml

from shortcut_lightning.files.atomic import write_text
from shortcut_lightning.report.page import Page, Section, render

PACKAGES = (
    "shortcut-lightning",
    "torch",
    "lightning",
    "diffusers",
    "transformers",
    "peft",
    "torchmetrics",
)


@dataclass(frozen=True)
class Report:
    """The facts of one run. `metrics` maps `eval/x` and `base/x` to value, low, high and n."""

    title: str
    created: str = ""  # local date and time
    seed: int = 0
    model: str = ""  # name and fingerprint of the weights that the run began with
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    extractors: Mapping[str, str] = field(default_factory=dict)  # metric -> network behind it
    counts: Mapping[str, int] = field(default_factory=dict)  # kind of image -> how many
    seconds: Mapping[str, float] = field(default_factory=dict)  # stage -> duration
    throughput: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    protection: Mapping[str, Any] = field(default_factory=dict)  # how many look protected
    buckets: Mapping[str, int] = field(default_factory=dict)  # width x height -> photographs
    config: str = ""  # YAML
    versions: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Section] = ()  # of the page alone

    def write(self, folder: Path) -> None:
        """Writes both files; an earlier report of the same run is replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / "report.json", text + "\n")
        page = Page(self.title, self.facts(), self.sections)
        write_text(folder / "report.html", render(page))

    def as_json(self) -> dict[str, Any]:
        """Plain types for JSON; a number that is not finite becomes null, in the configuration its
        YAML text (`.inf`)."""
        return {
            "title": self.title,
            "created": self.created,
            "seed": self.seed,
            "model": self.model,
            "metrics": {name: _finite(e) for name, e in self.metrics.items()},
            "extractors": dict(self.extractors),
            "counts": dict(self.counts),
            "seconds": {name: round(s, 3) for name, s in self.seconds.items()},
            "throughput": _finite(self.throughput),
            "warnings": list(self.warnings),
            **({"protection": dict(self.protection)} if self.protection else {}),
            **({"buckets": dict(self.buckets)} if self.buckets else {}),
            "versions": dict(self.versions),
            "config": _as_written(yaml.safe_load(self.config)) if self.config else {},
        }

    def facts(self) -> list[str]:
        """Short phrases for the head of the page."""
        counted = [f"{n} {kind}" for kind, n in self.counts.items() if n]
        speed = [f"{value:.3g} {name}" for name, value in self.throughput.items()]
        return [f for f in (self.created, *counted, *speed, f"seed {self.seed}") if f]


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; absent ones are left out."""
    versions = {"python": python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _as_written(value: Any) -> Any:
    """A value of YAML, with text for the numbers that JSON does not have."""
    match value:
        case dict():
            return {key: _as_written(entry) for key, entry in value.items()}
        case list():
            return [_as_written(entry) for entry in value]
        case float() if not math.isfinite(value):
            return yaml.safe_dump(value).split()[0]
    return value
