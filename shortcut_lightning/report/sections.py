"""The sections every report has."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from shortcut_lightning.report import plots
from shortcut_lightning.report.axis import number
from shortcut_lightning.report.curves import Curve
from shortcut_lightning.report.page import Section, fill
from shortcut_lightning.report.pictures import data_uri

MOST_PROMPTS = 12
MOST_IMAGES = 4  # of one arm and prompt
MOST_PHOTOGRAPHS = 12

# How a metric is called and read; the longest prefix that fits is taken.
_READING = {
    "clip_t": ("CLIP, image and text", "higher: the picture shows what its prompt says"),
    "clip_i": ("CLIP, image and image", "higher: closer to the reference photographs"),
    "identity": ("Identity match", "higher: the same subject as in the references"),
    "fid_": ("Fréchet distance", "lower: as a set, closer to the references"),
    "kid_": ("Kernel distance", "lower: as a set, closer to the references"),
}


class Photograph(NamedTuple):
    """An instance image before and after the stages."""

    name: str
    given: Tensor  # (3, H, W) in [0, 1]
    trained_on: Tensor  # (3, H, W) in [0, 1]


class Generated(NamedTuple):
    """The images of one prompt."""

    prompt: str
    arms: dict[str, list[Tensor]]  # "tuned" and "base" -> images (3, H, W) in [0, 1]


def photographs(images: Sequence[Photograph], remark: str = "") -> Section:
    """Instance images as given and, where a stage changed them, as trained on; a sentence or two
    about them."""
    shown = images[:MOST_PHOTOGRAPHS]
    changes = [float((i.given - i.trained_on).abs().max()) * 255 for i in images if _comparable(i)]
    same = len(changes) == len(images) and max(changes, default=0) < 0.5
    rows = [(i.name, data_uri(i.given), "" if same else data_uri(i.trained_on)) for i in shown]
    lead = f"{len(images)} instance images"
    lead += f", {len(shown)} shown" if len(shown) < len(images) else ""
    if same:
        lead += "; trained on as given."
    elif changes:
        lead += f"; the stages changed a pixel by up to {max(changes):.0f}/255."
    lead = f"{lead.removesuffix('.')}. {remark}" if remark else lead
    return Section("Photographs", fill("photographs.html", rows=rows, same=same), lead)


def in_buckets(counts: Mapping[str, int]) -> str:
    """A sentence about the sizes that photographs were learned at."""
    rows = ", ".join(f"{size} ({count})" for size, count in counts.items())
    return f"Learned in their own shapes; buckets, width x height: {rows}."


def generated(prompts: Sequence[Generated]) -> Section:
    """Images of each prompt, tuned and base model side by side."""
    shown = prompts[:MOST_PROMPTS]
    arms = [arm for arm in ("tuned", "base") if any(arm in g.arms for g in prompts)]
    rows = [
        (
            g.prompt,
            [(arm, [data_uri(i) for i in g.arms.get(arm, [])[:MOST_IMAGES]]) for arm in arms],
        )
        for g in shown
    ]
    total = sum(len(images) for g in prompts for images in g.arms.values())
    count = sum(len(uris) for _, blocks in rows for _, uris in blocks)
    lead = f"{total} images of {len(prompts)} prompts"
    lead += f"; {count} shown, all are in samples/." if count < total else "."
    return Section("Generated images", fill("generated.html", rows=rows, arms=arms), lead)


def metrics(
    measured: Mapping[str, Mapping[str, float]], extractors: Mapping[str, str] | None = None
) -> Section:
    """Every number with its interval; `eval/x` and `base/x` share an axis."""
    bare = dict.fromkeys(name.partition("/")[2] for name in measured)
    comparisons = []
    for name in bare:
        title, note = _reading(name)
        extractor = (extractors or {}).get(f"eval/{name}", "")
        rows = [
            plots.Measured(label, e["value"], e["low"], e["high"], int(e["n"]), kind=label)
            for label, prefix in (("tuned", "eval"), ("base", "base"))
            if (e := measured.get(f"{prefix}/{name}"))
        ]
        note = f"{note}. {name}" + (f", by {extractor}" if extractor else "")
        comparisons.append(plots.Comparison(title, note.removeprefix(". "), rows))
    lead = "Dots are values, lines are 95 % bootstrap intervals; n counts images."
    return Section("Measurements", plots.whiskers(comparisons), lead)


def cautions(sentences: Sequence[str]) -> Section:
    """What a reader of the numbers must know."""
    return Section("Read with care", fill("cautions.html", sentences=sentences))


def training(losses: Sequence[Curve]) -> Section:
    """Loss over steps: running means over the logged values; a curve that repeats an earlier one
    (the sum of losses where there is only one) is left out."""
    different = {tuple(curve.points): curve for curve in reversed(losses)}
    shown = [curve for curve in losses if different[tuple(curve.points)] is curve]
    raw = [curve.thinned() for curve in shown]
    smooth = [curve.smoothed().thinned() for curve in shown]
    lead = "Running mean; single steps in the background." if losses else ""
    return Section("Training", plots.lines(smooth, "optimiser steps", raw), lead)


def seconds(stages: Mapping[str, float]) -> Section:
    """Where the time went; stages that took no time to speak of are left out."""
    total = sum(stages.values())
    shown = {name: value for name, value in stages.items() if value >= 0.005 * total}
    return Section("Time", plots.bars(shown, "s"), f"{number(total)} seconds in all.")


def setup(config: str, versions: Mapping[str, str]) -> Section:
    """Configuration and versions, folded."""
    return Section("Configuration", fill("setup.html", config=config, versions=versions))


def _reading(name: str) -> tuple[str, str]:
    fits = [key for key in _READING if name.startswith(key)]
    return _READING[max(fits, key=len)] if fits else (name, "")


def _comparable(photograph: Photograph) -> bool:
    return photograph.given.shape == photograph.trained_on.shape
