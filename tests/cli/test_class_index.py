"""Classes found in source without importing: `pytest tests/cli/test_class_index.py`."""

import sys
from pathlib import Path

import pytest

from shortcut_lightning.cli.class_index import class_index, descendants, import_named


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "house"
    (root / "rooms").mkdir(parents=True)
    (root / "cli").mkdir()
    (root / "__init__.py").write_text("")
    (root / "rooms/__init__.py").write_text("class Base:\n    pass\n")
    (root / "rooms/one.py").write_text(
        "from house.rooms import Base\n\nclass One(Base, Generic[T]):\n    pass\n\n"
        "class _Hidden(Base):\n    pass\n"
    )
    (root / "rooms/two.py").write_text(
        "import house.rooms.one\n\nclass Two(\n    house.rooms.one.One,\n): ...\n"
    )
    (root / "rooms/broken.py").write_text("class Broken:\n    pass\n\nraise ImportError\n")
    (root / "cli/app.py").write_text("class Machinery:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return root


def test_every_public_class_with_its_module_and_bases(package: Path) -> None:
    entries = {entry.name: (entry.module, entry.bases) for entry in class_index(package)}
    assert entries == {
        "Base": ("house.rooms", ()),
        "One": ("house.rooms.one", ("Base", "Generic")),
        "Two": ("house.rooms.two", ("One",)),
        "Broken": ("house.rooms.broken", ()),
    }


def test_descendants_through_generations(package: Path) -> None:
    assert descendants("Base", class_index(package)) == ["One", "Two"]


def test_only_named_modules_are_imported(package: Path) -> None:
    (package / "rooms/one.py").write_text("class One:\n    pass\n")
    # Named two files away, by a path that is relative to the file it stands in.
    (package / "deep").mkdir()
    Path("main.yaml").write_text("data:\n  attack: house/deep/part.yaml\n")
    (package / "deep/part.yaml").write_text("class_path: One\n")
    entries = class_index(package)
    import_named(["fit", "--config=main.yaml"], entries)
    assert "house.rooms.one" in sys.modules
    assert "house.rooms.broken" not in sys.modules


@pytest.mark.parametrize("form", ["--config={}", "{}"])
def test_paths_may_have_spaces(package: Path, form: str) -> None:
    (package / "rooms/one.py").write_text("class One:\n    pass\n")
    folder = Path("my configs")
    folder.mkdir()
    (folder / "main.yaml").write_text("data:\n  attack: 'the part.yaml'\n")
    (folder / "the part.yaml").write_text("class_path: One\n")
    import_named(["fit", form.format(folder / "main.yaml")], class_index(package))
    assert "house.rooms.one" in sys.modules


def test_our_own_package_has_attacks() -> None:
    assert "Attack" in {entry.name for entry in class_index()}
    assert descendants("Attack", class_index())
