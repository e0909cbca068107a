"""Where on the path members are told, by audits of several seeds, and where a closed form says.

A peak is chosen on other trainings than it is judged on.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from shortcut_lightning.audit.pooled import Audited, Collection, Term, area
from shortcut_lightning.audit.table_claims import ALONG, SETTINGS, answer
from shortcut_lightning.audit.table_text import differences, markdown
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.membership.roc import Interval

LEVELS = "levels.csv"  # of an audit: minus the loss of each picture at each timestep of its curve
MIDDLE = (1 / 3, 2 / 3)  # of the path

Levels = list[dict[str, float]]  # of a report's curve: timestep, share, auc


def levels_of(audit: Audited, folder: Path, features: Path) -> Audited | None:
    """The audit with minus the loss at each timestep of its curve as its scores.

    They come from `LEVELS` in `folder`, or else from the measured features; None where neither has
    every picture, or where losses were measured with several settings, which are not told apart.
    """
    if not (path := audit.report.get("path")):
        return None
    steps = [str(level["timestep"]) for level in path["levels"]]
    rows = _kept(folder / LEVELS, steps) or _measured(features, audit, len(steps))
    if not rows.keys() >= set(audit.keys):
        return None
    values = np.array([rows[key] for key in audit.keys])
    no_threshold = {"target": {"tau": float("nan")}}  # an AUC has none
    return Audited(
        audit.name,
        {**audit.report, "scores": dict.fromkeys(steps, no_threshold)},
        audit.keys,
        audit.member,
        dict(zip(steps, values.T, strict=True)),
    )


def keep_levels(audit: Audited, path: Path) -> None:
    """Writes what `levels_of` found: a row for each picture."""
    with atomic(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["key", *audit.scores])
        for key, *row in zip(audit.keys, *audit.scores.values(), strict=True):
            writer.writerow([key, *(f"{value:.6g}" for value in row)])


def curves_table(found: Collection) -> str:
    """The curve of every audit that has one, its highest point, the one of the setting's other
    seeds, and the closed form's; empty where there is none."""
    rows, at = [], ""
    for name, each in found.audits.items():
        if not (path := each.report.get("path")):
            continue
        levels: Levels = path["levels"]
        at = at or " ".join(f"{level['share']:.2f}" for level in levels)
        own, others = _highest([levels]), _others(found, name)
        rows.append(
            [
                name,
                " ".join(f"{level['auc']:.2f}" for level in levels),
                f"{levels[own]['share']:.2f}",
                f"{levels[_highest(others)]['share']:.2f}" if others else "",
                f"{path['predicted_share']:.2f}",
            ]
        )
    head = ["audit", f"AUC of the loss at s = {at}", "peak", "peak of the other seeds", "predicted"]
    return markdown(head, rows) if rows else ""


def peak_table(found: Collection) -> str:
    """What is asked of the peak, for settings of several seeds whose levels are there (see
    `levels_of`): its answer and the differences behind it; empty where there are none."""
    settings = dict.fromkeys(name.rpartition("-")[0] for name in found.audits)
    rows = [
        [
            f"{text}, {SETTINGS[setting].removesuffix(ALONG)}",
            answer(list(values.values())),
            differences(values),
        ]
        for setting in settings
        if setting in SETTINGS and len(found.seeds(setting)) > 1
        for text, values in _peak_claims(found, setting)
    ]
    head = ["claim", "answer", "differences of AUC of the loss, 95 % interval"]
    return markdown(head, rows) if rows else ""


def _peak_claims(found: Collection, setting: str) -> Iterator[tuple[str, dict[str, Interval]]]:
    names = found.seeds(setting)
    levels: Levels = found.audits[names[0]].report["path"]["levels"]
    shares = [level["share"] for level in levels]
    peaks = {name: _highest(_others(found, name)) for name in names}
    middle = [place for place, s in enumerate(shares) if MIDDLE[0] < s < MIDDLE[1]]
    ends = {f"s = {shares[end]:.2f}": [end] for end in (0, len(shares) - 1)}

    def above(places: dict[str, int], others: Sequence[int]) -> Interval:
        return found.mean(area, list(_terms(found, places, others)))

    yield (
        "The peak, chosen on the other seeds, lies between the ends asked",
        {end: above(peaks, places) for end, places in ends.items()},
    )
    yield (
        "The peak, chosen on the other seeds, tells more than the middle third of the path",
        {"": above(peaks, middle)},
    )
    predicted = float(np.mean([found.audits[n].report["path"]["predicted_share"] for n in names]))
    for reading, share in (("", predicted), (", its weight read the other way", 1 - predicted)):
        place = int(np.argmin([abs(s - share) for s in shares]))
        yield (
            f"The closed form's place{reading} (s = {share:.2f}; asked at {shares[place]:.2f}) "
            "tells more than the middle third of the path",
            {"": above(dict.fromkeys(names, place), middle)},
        )


def _terms(found: Collection, places: dict[str, int], others: Sequence[int]) -> Iterator[Term]:
    """The level of each seed minus the mean of other levels, as a mean over seeds."""
    for name, place in places.items():
        steps = [*found.audits[name].scores]
        yield 1 / len(places), name, steps[place]
        for other in others:
            yield -1 / len(places) / len(others), name, steps[other]


def _highest(curves: Sequence[Levels]) -> int:
    """Place of the level with the highest mean AUC."""
    return int(np.argmax(np.mean([[level["auc"] for level in each] for each in curves], axis=0)))


def _others(found: Collection, name: str) -> list[Levels]:
    """The curves of the other seeds of an audit's setting: they share its pictures, but other ones
    of them are members there."""
    seeds = found.seeds(name.rpartition("-")[0])
    paths = [found.audits[other].report.get("path") for other in seeds if other != name]
    return [path["levels"] for path in paths if path]


def _kept(path: Path, steps: Sequence[str]) -> dict[str, list[float]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["key"]: [float(row[step]) for step in steps] for row in csv.DictReader(file)}


def _measured(features: Path, audit: Audited, count: int) -> dict[str, list[float]]:
    """Rows of a file of `LossProfile` (see `membership/ledger.py`): picture and caption, the mean
    of the losses, then each."""
    target = audit.report.get("weights", {}).get("target")
    files = [*features.glob(f"LossProfile-{target}-*.tsv")] if target else []
    if len(files) != 1:
        return {}
    lines = [line.split("\t") for line in files[0].read_text("ascii").splitlines()]
    whole = [line for line in lines if len(line) == count + 2 and line[-1] != "cut"]
    return {name.partition("-")[0]: [*map(float, rest[1:])] for name, *rest in whole}
