"""The versions that were tested: `.ci/versions.csv`, and the caps in pyproject.toml that follow.

    python .ci/versions.py newest    writes what this environment has into the column `newest`
    python .ci/versions.py lowest    the same for the column `lowest`
    python .ci/versions.py caps      sets pyproject.toml's caps by the column `newest`

`.ci/run` and `.ci/raise` write a column when the tests have passed in that environment; nobody
writes the table by hand. A cap lets in the patches of the newest minor version that was tested.
"""

import csv
import platform
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"
TABLE = ROOT / ".ci" / "versions.csv"
COLUMNS = ("package", "extra", "lowest", "newest", "note")
# Rows without versions, and why.
UNTESTED = {"torch-fidelity": "needs torchvision, whose wheel does not load beside torch for CPUs"}


def requirements(project: dict[str, Any]) -> dict[str, tuple[str, Requirement]]:
    """What pyproject.toml asks for, by name: the extra that does ("" for none) and the bounds."""
    optional = project["project"]["optional-dependencies"]
    found = {}
    for extra, lines in {"": project["project"]["dependencies"], **optional}.items():
        for each in map(Requirement, lines):
            if each.name != project["project"]["name"]:
                found[canonicalize_name(each.name)] = (extra, each)
    return found


def read() -> dict[str, dict[str, str]]:
    """The table's rows by package."""
    with TABLE.open(newline="") as file:
        return {row["package"]: row for row in csv.DictReader(file)}


def record(column: str) -> None:
    """Writes this environment's versions; a package that it lacks keeps what the table has."""
    earlier = read() if TABLE.exists() else {}
    rows = {"python": ("", platform.python_version())}
    for name, (extra, _) in requirements(tomllib.loads(PYPROJECT.read_text())).items():
        rows[name] = (extra, "" if name in UNTESTED else _installed(name))
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, (extra, found) in rows.items():
            row = {key: earlier.get(name, {}).get(key, "") for key in ("lowest", "newest")}
            row |= {column: found or row[column], "note": UNTESTED.get(name, "")}
            writer.writerow({"package": name, "extra": extra, **row})


def _installed(name: str) -> str:
    try:
        return Version(version(name)).public  # without "+cpu"
    except PackageNotFoundError:
        return ""


def cap(newest: str) -> str:
    """The first version that is not let in: the minor version after the newest tested."""
    major, minor = (*Version(newest).release, 0)[:2]
    return f"{major}.{minor + 1}"


def set_caps() -> None:
    """Rewrites the caps in pyproject.toml, and nothing else there."""
    text = PYPROJECT.read_text()
    for name, row in read().items():
        if row["newest"] and name != "python":
            line = re.compile(rf'("{re.escape(name)}(?:\[\w+\])?>=[^"<]*<)[\d.]+"', re.IGNORECASE)
            text, count = line.subn(rf'\g<1>{cap(row["newest"])}"', text)
            if count != 1:
                sys.exit(f"pyproject.toml has {count} caps for {name}; it should have one")
    PYPROJECT.write_text(text)


def main(words: list[str]) -> None:
    if words == ["caps"]:
        set_caps()
    elif words in (["newest"], ["lowest"]):
        record(words[0])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
