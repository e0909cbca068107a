"""The page about growth from its rows: python tests/benchmarks/scale_page.py [--rate 60]

`results/scale.csv` holds what was measured (`scale.py`), `results/scale_inputs.csv` what is
assumed; `--KEY VALUE` tries another assumption and prints the page instead of writing it.
"""

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

sys.path.insert(0, str(Path(__file__).parent))
from scale import PARTS, RESULTS, Row, read

FOLDER = RESULTS.parent
INPUTS, PAGE = FOLDER / "scale_inputs.csv", FOLDER / "scale.md"
GPUS = (8, 64)


class Cost(NamedTuple):
    """What so many pictures take on so many GPUs."""

    pictures: float
    gpus: int
    hours: float
    dollars: float
    bottleneck: str  # what is used most, GPUs aside
    share: float  # of what there is of it


def inputs(changed: Mapping[str, float] = {}) -> list[dict[str, Any]]:
    """The assumptions, some of them changed."""
    with INPUTS.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row["value"] = changed.get(row["key"], float(row["value"]))
        if row["key"] in changed:
            row["where from"] = "given"
    return rows


def cost(given: Mapping[str, float], pictures: float, gpus: int) -> Cost:
    """Hours and money at the rate of a GPU, and which other resource is nearest to its limit;
    `given["decode"]` are seconds of a core."""
    seconds = pictures * given["models"] / (given["rate"] * gpus)
    rate = pictures / seconds
    nodes = max(1.0, gpus / given["gpus_per_node"])
    used = {
        "decoding": rate * given["decode"] / (gpus * given["cores"]),
        "network": rate * given["picture_bytes"] / (nodes * given["network"]),
        "disk": rate * given["picture_bytes"] / (nodes * given["disk"]),
    }
    most = max(used, key=lambda name: used[name])
    dollars = seconds / 3600 * gpus * given["price"]
    return Cost(pictures, gpus, seconds / 3600, dollars, most, used[most])


def rendered(rows: Sequence[Row], assumed: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    given = {row["key"]: row["value"] for row in assumed}
    read_in = [row.value for row in rows if row.part == "decoding"]
    given["decode"] = read_in[0] / 1000 if read_in else math.nan

    def value(part: str, kind: str, way: str, size: int, what: str) -> float | None:
        found = [row.value for row in rows if row[:5] == (part, kind, way, size, what)]
        return found[0] if found else None

    def sizes(part: str, kind: str) -> list[int]:
        return sorted({row.size for row in rows if row[:2] == (part, kind)})

    def kinds(part: str) -> list[str]:
        return list(dict.fromkeys(row.kind for row in rows if row.part == part))

    def ways(part: str, kind: str) -> list[str]:
        return list(dict.fromkeys(row.way for row in rows if row[:2] == (part, kind)))

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["short"] = lambda number: "" if number is None else f"{number:.3g}"
    environment.filters["share"] = lambda number: "" if number is None else f"{number:.1%}"
    costs = [cost(given, n, gpus) for n in (given["pictures"], 1e9) for gpus in GPUS]
    return environment.get_template("scale.md.jinja").render(
        value=value,
        sizes=sizes,
        kinds=kinds,
        ways=ways,
        missing=[part for part in PARTS if not kinds(part)],
        inputs=assumed,
        given=given,
        costs=costs,
        fed=given["cores"] / given["decode"] * given["models"],
        kept_tb=1e9 * given["kept_bytes"] / 1e12,
        in_memory_gb=1e9 * given["memory_bytes"] / 1e9,
        parts=1e9 / given["part_pictures"],
    )


def main() -> None:
    """Writes the page, or prints one of other assumptions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for row in inputs():
        parser.add_argument(f"--{row['key']}", type=float, help=f"{row['unit']} ({row['value']:g})")
    changed = {key: value for key, value in vars(parser.parse_args()).items() if value}
    page = rendered(read(RESULTS) if RESULTS.exists() else [], inputs(changed))
    if changed:
        sys.stdout.write(page)
    else:
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
