"""pyproject.toml allows what was tested, and no more: python -m pytest tests/test_versions.py"""

import importlib.metadata
import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()


@pytest.fixture
def versions() -> ModuleType:
    """`.ci/versions.py`, which no package holds."""
    spec = importlib.util.spec_from_file_location("versions", ROOT / ".ci" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def disagreements(versions: ModuleType, text: str) -> list[str]:
    """Where the bounds of a pyproject.toml are not those of the table."""
    asked = versions.requirements(tomllib.loads(text))
    rows = versions.read()
    wrong = [f"{name} has no row" for name in asked.keys() - rows.keys()]
    wrong += [f"{name} is not asked for" for name in rows.keys() - asked.keys() - {"python"}]
    for name, (extra, requirement) in asked.items():
        bounds = {each.operator: each.version for each in requirement.specifier}
        row = rows.get(name)
        if bounds.keys() != {">=", "<"}:
            wrong.append(f"{name} needs a lower bound and a cap, not '{requirement.specifier}'")
        elif row is not None and row["extra"] != extra:
            wrong.append(f"{name} stands in another extra")
        elif row is not None and name not in versions.UNTESTED:
            if bounds["<"] != versions.cap(row["newest"]):
                wrong.append(f"{name}<{bounds['<']}, but {row['newest']} is the newest tested")
            lower = Version(bounds[">="]).release
            if Version(row["lowest"]).release[: len(lower)] != lower:
                wrong.append(f"{name}>={bounds['>=']}, but {row['lowest']} is the lowest tested")
    return wrong


def test_the_bounds_are_the_tested_versions(versions: ModuleType) -> None:
    assert disagreements(versions, PYPROJECT) == []


@pytest.mark.parametrize(
    ("bounds", "complaint"),
    [
        ("torch>=2.13,<3", "torch<3, but 2.13.0 is the newest tested"),
        ("torch>=2.0,<2.14", "torch>=2.0, but 2.13.0 is the lowest tested"),
        ("torch>=2.13", "torch needs a lower bound and a cap, not '>=2.13'"),
        ("torch==2.13.0", "torch needs a lower bound and a cap, not '==2.13.0'"),
        ('torch>=2.13,<2.14", "another>=1,<2', "another has no row"),
        ("another>=1,<2", "torch is not asked for"),
    ],
)
def test_other_bounds_are_seen(versions: ModuleType, bounds: str, complaint: str) -> None:
    assert complaint in disagreements(versions, PYPROJECT.replace("torch>=2.13,<2.14", bounds))


def test_caps_follow_the_table(versions: ModuleType, tmp_path: Path) -> None:
    """`.ci/versions.py caps` changes the caps of what was tested, and nothing else."""
    versions.PYPROJECT = tmp_path / "pyproject.toml"
    loose = PYPROJECT.replace("torch>=2.13,<2.14", "torch>=2.13,<2.9").replace(",<5.24", ",<5.3")
    versions.PYPROJECT.write_text(loose)
    versions.set_caps()
    assert versions.PYPROJECT.read_text() == PYPROJECT


def test_the_table_is_written_by_its_command(versions: ModuleType, tmp_path: Path) -> None:
    """A column is this environment's versions; the other one, and what is not installed, stay."""
    before = versions.read()
    table = tmp_path / "versions.csv"
    table.write_bytes(versions.TABLE.read_bytes())
    versions.TABLE = table
    versions.record("newest")
    after = versions.read()
    assert [*after] == [*before]
    assert {name: row["lowest"] for name, row in after.items()} == {
        name: row["lowest"] for name, row in before.items()
    }
    assert after["torch"]["newest"] == importlib.metadata.version("torch").split("+")[0]
    assert all(row["newest"] for name, row in after.items() if name not in versions.UNTESTED)
