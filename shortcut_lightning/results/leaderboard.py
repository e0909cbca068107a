"""Methods against defences, ranked by their worst case, as one page that needs no server.

An attack is as good as against the defence that gives most back, a defence as good as against the
attack that takes most; those who know the other side are included. Rows come from matrices with a
factor `attack`, of which factors that set nothing but the attack are a part, and from files of
other groups (`FOREIGN` are their columns).
"""

import base64
import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress, groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import torch
import yaml

from shortcut_lightning.bench.cell_pictures import picture_of
from shortcut_lightning.bench.matrix import Settings
from shortcut_lightning.files.reading import read_text
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.report.page import template
from shortcut_lightning.results.pages import TEMPLATE, rooms
from shortcut_lightning.results.suite import Suite

KNOWING = ("purifiers", "decoupling")  # arguments by which an attack is told of the defence
FOREIGN = (
    *("source", "family", "attack", "radius", "adaptive", "defence"),
    *("subject", "seed", "metric", "value"),
)


@dataclass(frozen=True)
class Entry:
    """One attack met by one defence."""

    source: str  # whose rows
    family: str  # the model that learnt
    attack: str  # empty: the photographs were not protected
    radius: float | None  # /255; None where the attack has no single one
    adaptive: bool  # the attack was told of a defence
    defence: str
    mean: Estimate  # over subjects; higher: more was learnt
    subjects: dict[str, float]
    link: str  # to the config, relative to the page, or to a group's own page
    command: str
    picture: str = ""  # data URI of a strip: given, published, learnt from, what was learnt


def own(root: Path, page: Path, metric: str) -> list[Entry]:
    """Entries of every matrix below a folder that has rows and a factor `attack`.

    Args:
        root: Folder of recipes and rows.
        page: Where the page will lie; links are relative to it.
        metric: Higher where more was learnt, such as `eval/avg_pocket`.

    Raises:
        ValueError: rows that cannot be read, or that their matrix does not know.
    """
    entries = []
    for room in rooms(root):
        for folder in sorted((room / TEMPLATE).parent.iterdir()):
            recipe = room / f"{folder.name}.yaml"
            if (folder / "cells.csv").is_file() and recipe.is_file():
                entries += _of(Suite(recipe, folder, [metric]), recipe, page, metric)
    return entries


def _of(suite: Suite, recipe: Path, page: Path, metric: str) -> list[Entry]:
    if "attack" not in suite.matrix.factors:
        return []
    parts = [name == "attack" or _attacks(of) for name, of in suite.matrix.factors.items()]
    relative = os.path.relpath(recipe.resolve(), page.resolve().parent)
    entries = []
    for levels in suite.matrix.arms():
        arm = "/".join(levels)
        values = suite.table.values.get(metric, {}).get(arm, {})
        if values:
            models = {row.model for row in suite.rows.ran.values() if row.arm == arm}
            radius, adaptive, attacked = _attack(suite.matrix.settings_of(levels), recipe.parent)
            entries.append(
                Entry(
                    source="this package",
                    family=", ".join(sorted({model.partition(" ")[0] for model in models})),
                    attack="/".join(compress(levels, parts)) if attacked else "",
                    radius=radius,
                    adaptive=adaptive,
                    defence="/".join(compress(levels, (not part for part in parts))),
                    mean=suite.table.estimate(metric, arm),
                    subjects=dict(values),
                    link=quote(Path(relative).as_posix()),
                    command=f"python train.py bench --config {recipe.as_posix()}",
                    picture=_picture(picture_of(suite.folder, arm)),
                )
            )
    return entries


def _picture(path: Path) -> str:
    if not path.is_file():
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _attacks(levels: Mapping[str, Settings]) -> bool:
    """Whether a factor sets the attack and nothing else."""
    keys = [key for settings in levels.values() for key in settings]
    return bool(keys) and all(key.startswith("data.attack") for key in keys)


def _attack(settings: Settings, folder: Path) -> tuple[float | None, bool, bool]:
    """Radius in /255, whether it was told of a defence, and whether there is an attack at all."""
    given = settings.get("data.attack")
    if given is None or settings.get("data.attack_share") == 0:
        return None, False, False
    if isinstance(given, str) and given.endswith((".yaml", ".yml")):
        given = yaml.safe_load((folder / given).read_text("utf-8"))
    arguments: dict[str, Any] = dict(given.get("init_args", {})) if isinstance(given, dict) else {}
    start = "data.attack."
    arguments |= {
        key.removeprefix(start).removeprefix("init_args."): value
        for key, value in settings.items()
        if key.startswith(start)
    }
    adaptive = any(name.partition(".")[0] in KNOWING for name in arguments)
    return arguments.get("epsilon"), adaptive, True


def foreign(path: Path, metric: str) -> list[Entry]:
    """Entries of another group's CSV file with the columns `FOREIGN`.

    `source` is the address of the page that describes the rows; `radius` in /255 may be empty;
    `adaptive` is yes or no; an empty `attack` is the unprotected photograph.

    Raises:
        ValueError: the file cannot be read or has other columns, or a line is not valid.
    """
    try:
        first, *lines = list(csv.reader(io.StringIO(read_text(path), newline=""))) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    if tuple(first) != FOREIGN:
        raise ValueError(
            f"{path} has the columns {', '.join(first)}; allowed: {', '.join(FOREIGN)}."
        )
    numbered = [(f"{path}, line {number}", line) for number, line in enumerate(lines, 2)]
    checked = [_checked(where, line) for where, line in numbered]
    if len({row[:-1] for row in checked}) < len(checked):
        raise ValueError(f"{path}: two lines are of the same cell, seed and metric.")
    kept = sorted(row for row in checked if row[8] == metric)
    if not kept:
        raise ValueError(f"{path} has no rows of '{metric}', by which the page ranks (--metric).")
    return [
        _entry(key, [(row[6], float(row[9])) for row in rows])
        for key, rows in groupby(kept, key=lambda row: row[:6])
    ]


def _checked(where: str, line: Sequence[str]) -> tuple[str, ...]:
    """The line; numbers are finite, the source is an address of the web.

    Raises:
        ValueError: it is not so.
    """
    if len(line) != len(FOREIGN):
        raise ValueError(f"{where}: {len(line)} columns, {len(FOREIGN)} are needed.")
    row = dict(zip(FOREIGN, line, strict=True))
    try:
        address = urlsplit(row["source"])
    except ValueError:
        address = urlsplit("")
    if address.scheme not in ("http", "https") or not address.netloc:
        raise ValueError(f"{where}: source is '{row['source']}'; allowed: an https:// address.")
    if row["adaptive"] not in ("yes", "no"):
        raise ValueError(f"{where}: adaptive is '{row['adaptive']}'; allowed: yes, no.")
    for name in ("family", "defence", "subject", "metric"):
        if not row[name]:
            raise ValueError(f"{where}: {name} is empty.")
    for name in ("value", "radius") if row["radius"] else ("value",):
        if not math.isfinite(_number(row[name])):
            raise ValueError(f"{where}: {name} is '{row[name]}'; allowed: a finite number.")
    return tuple(line)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _entry(key: Sequence[str], values: Iterable[tuple[str, float]]) -> Entry:
    source, family, attack, radius, adaptive, defence = key
    by_subject: dict[str, list[float]] = {}
    for subject, value in values:
        by_subject.setdefault(subject, []).append(value)
    subjects = {name: sum(of) / len(of) for name, of in by_subject.items()}
    return Entry(
        source=source.partition("://")[2],
        family=family,
        attack=attack,
        radius=float(radius) if radius else None,
        adaptive=adaptive == "yes",
        defence=defence,
        mean=mean_estimate(torch.tensor(list(subjects.values()))),
        subjects=subjects,
        link=source,
        command="",
    )


def page(entries: Sequence[Entry], metric: str) -> str:
    """The page as HTML: everything in it, and nothing is asked of anybody else."""
    return template("leaderboard.html").render(
        metric=metric, entries=[asdict(e) | {"mean": _finite(e.mean)} for e in entries]
    )


def _finite(estimate: Estimate) -> list[float | None]:
    """As JSON has it, where there is no NaN; one subject has no interval."""
    value, low, high, n = (each if math.isfinite(each) else None for each in estimate)
    return [value, low, high, n] if estimate.n > 1 else [value, None, None, n]
