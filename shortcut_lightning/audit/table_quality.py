"""What the pictures of audited models are worth, by themselves and picture against picture."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shortcut_lightning.audit.table_text import interval, markdown
from shortcut_lightning.files import csv_rows
from shortcut_lightning.membership.roc import Interval

QUALITY = "quality.csv"  # in the folder of kept rows; beside `reports` a folder for each run
PICTURES = "pictures.csv"  # the same of each picture
SHOWN = {"kid_pocket": "KID", "fid_pocket": "FID", "clip_t": "CLIP-T", "quality_pocket": "quality"}
PAIRED = ("clip_t", "quality_pocket")  # of single pictures; the others are of sets
RESAMPLES = 2000


class Worth(NamedTuple):
    """One measure of a model's pictures, a line of `QUALITY`."""

    name: str
    metric: str
    value: float
    low: float
    high: float
    n: int


class Drawing(NamedTuple):
    """One picture of a model, a line of `PICTURES`."""

    name: str
    caption: str  # a digest of it
    seed: int
    clip_t: float
    quality_pocket: float


class PictureQuality:
    """The measures of the pictures in one folder.

    Args:
        folder: What run.sh was given, with `quality/`, or the folder of kept rows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        kept = folder / QUALITY
        self.worth: list[Worth] = (
            csv_rows.read(kept, Worth) if kept.is_file() else _reported(folder)
        )

    def table(self) -> str:
        """Every measure of each model; empty where no pictures were drawn."""
        said = {(w.name, w.metric): interval(Interval(w.value, w.low, w.high)) for w in self.worth}
        names = dict.fromkeys(each.name for each in self.worth)
        body = [[name, *(said[name, key] for key in SHOWN)] for name in names]
        return markdown(["model", *SHOWN.values()], body) if body else ""

    def paired(self, first: str, second: str) -> str:
        """Differences of two settings over pictures of one caption and one seed, the mean over the
        trainings; empty where no picture's measures were kept."""
        path = self._folder / PICTURES
        rows: list[Drawing] = csv_rows.read(path, Drawing) if path.is_file() else []
        pairs = _pairs(rows, first, second)
        if not pairs:
            return ""
        body = []
        for key in PAIRED:
            changes = [(ours, getattr(ours, key) - getattr(other, key)) for ours, other in pairs]
            body.append([SHOWN[key], *_told(_difference(changes))])
        return markdown(["measure", f"{first} minus {second}, paired", "answer"], body)

    def keep(self, rows: Path) -> None:
        """Copies what there is to `rows`, and measures each picture that runs of `test` left."""
        if self.worth:
            csv_rows.write(rows / QUALITY, self.worth)
        if drawn := [d for run in _runs(self._folder) for d in measured(run.parent)]:
            csv_rows.write(rows / PICTURES, drawn)


def measured(run: Path) -> list[Drawing]:
    """`clip_t` and `quality_pocket` of each picture of a run of `test`, as its report has their
    means; none where no pictures were saved."""
    import torch

    from shortcut_lightning.files.images import load_image
    from shortcut_lightning.metrics.encoders import PocketClip, image_features, text_features
    from shortcut_lightning.pocket import networks

    folder = run / "samples" / "tuned"
    if not (folder / "metadata.jsonl").is_file():
        return []
    told = (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    lines = [json.loads(line) for line in told]
    texts, seeds = [line["text"] for line in lines], [line["seed"] for line in lines]
    images = torch.stack([load_image(folder / line["file_name"]) for line in lines])
    cpu, clip = torch.device("cpu"), PocketClip()
    shown, said = image_features(clip, images, cpu), text_features(clip, texts, cpu)
    alike = torch.cosine_similarity(shown, said).tolist()
    clean = networks.load_attribute_classifier().quality(images)[:, 0].tolist()
    names = [hashlib.sha256(text.encode()).hexdigest()[:8] for text in texts]
    return [
        Drawing(run.parent.name, name, seed, round(a, 6), round(q, 6))
        for name, seed, a, q in zip(names, seeds, alike, clean, strict=True)
    ]


def _runs(folder: Path) -> list[Path]:
    """Reports of the runs of `test`."""
    return sorted(folder.glob("quality/*/version_*/report.json"))


def _reported(folder: Path) -> list[Worth]:
    rows = []
    for report in _runs(folder):
        metrics = json.loads(report.read_text("utf-8"))["metrics"]
        name = report.parent.parent.name
        rows += [Worth(name, metric=key, **metrics[f"eval/{key}"]) for key in SHOWN]
    return rows


def _pairs(rows: Sequence[Drawing], first: str, second: str) -> list[tuple[Drawing, Drawing]]:
    """Pictures of one number of training, one caption and one seed."""

    def of(setting: str) -> dict[tuple[str, str, int], Drawing]:
        own = [(row, *row.name.rpartition("-")[::2]) for row in rows]
        return {(n, row.caption, row.seed): row for row, kind, n in own if kind == setting}

    ours, others = of(first), of(second)
    return [(ours[key], others[key]) for key in ours if key in others]


def _difference(pairs: Sequence[tuple[Drawing, float]]) -> Interval:
    """Mean over trainings of the mean difference. The bootstrap draws captions, in all trainings
    together: the pictures of one caption, and trainings asked for it, have much in common."""
    captions = sorted({row.caption for row, _ in pairs})
    rng = np.random.default_rng(0)
    draws = rng.integers(len(captions), size=(RESAMPLES, len(captions)))
    counts = np.stack([np.bincount(draw, minlength=len(captions)) for draw in draws])
    points, samples = [], []
    for name in sorted({row.name for row, _ in pairs}):
        own = [(captions.index(row.caption), value) for row, value in pairs if row.name == name]
        places, values = np.array([p for p, _ in own]), np.array([v for _, v in own])
        points.append(values.mean())
        weights = counts[:, places]
        with np.errstate(invalid="ignore"):  # where no caption of these was drawn
            samples.append((weights * values).sum(1) / weights.sum(1))
    low, high = np.nanquantile(np.mean(samples, axis=0), (0.025, 0.975))
    return Interval(float(np.mean(points)), float(low), float(high))


def _told(value: Interval) -> list[str]:
    number = f"{value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f})"
    return [number, "higher" if value.low > 0 else "lower" if value.high < 0 else "not told apart"]
