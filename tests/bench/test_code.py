"""Finished cells know the code that made them: python -m pytest tests/bench/test_code.py"""

import json
from pathlib import Path
from typing import Any

import pytest

from shortcut_lightning.bench import Matrix
from shortcut_lightning.bench.code import code_of_users
from shortcut_lightning.bench.runner import Runner
from shortcut_lightning.files.code import deciding_code, said

SETTINGS: dict[str, Any] = {
    "base": ["base.yaml"],
    "factors": {"attack": {"clean": {}, "mine": {"data.attack": "my_attack.Mine"}}},
    "subjects": ["pocket:0"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base.yaml").write_text("{}\n")
    (tmp_path / "my_attack.py").write_text("class Mine:\n    steps = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def runner(folder: Path, keep_stale: bool = False) -> tuple[Runner, list[str], list[str]]:
    """A runner whose runs write an empty report; what it ran, and what it told."""
    ran: list[str] = []
    told: list[str] = []

    def run(words: list[str]) -> None:
        name = next(word for word in words if word.startswith("--name=")).removeprefix("--name=")
        ran.append(name)
        report = folder / "runs" / "pocket-0" / "seed0" / name / "version_0" / "report.json"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps({"metrics": {}, "seconds": {}, "versions": {}}))

    matrix = Matrix(**SETTINGS | {"output_dir": str(folder / "runs")})
    return Runner(matrix, folder, run, told.append, keep_stale), ran, told


def test_a_class_of_the_users_own_that_changed_runs_its_cells_anew(folder: Path) -> None:
    first, ran, told = runner(folder)
    first.all()
    assert ran == ["clean", "mine"]
    again, ran, told = runner(folder)
    again.all()
    assert not ran
    (folder / "my_attack.py").write_text("class Mine:\n    steps = 2  # more\n")
    changed, ran, told = runner(folder)
    changed.all()
    assert ran == ["mine"]
    assert told[0].startswith("1 finished cells were made by other settings, pictures or code")
    (folder / "my_attack.py").write_text('class Mine:\n    """Doc."""\n\n    steps = 2\n')
    documented, ran, told = runner(folder)
    documented.all()
    assert not ran


def test_another_state_of_the_package_runs_them_anew_unless_they_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner(folder)[0].all()
    monkeypatch.setattr("shortcut_lightning.bench.runner.deciding_code", lambda: "another")
    kept, ran, told = runner(folder, keep_stale=True)
    kept.all()
    assert not ran
    assert not told
    anew, ran, told = runner(folder)
    assert not anew.reports()
    anew.all()
    assert ran == ["clean", "mine"]
    assert told[0].startswith("2 finished cells were made by another state of the package's code")
    assert len(anew.reports()) == 2


def test_only_files_of_the_user_are_hashed(folder: Path) -> None:
    named = {"a": "my_attack.Mine", "b": ["torch.optim.SGD", "os.path.join", "no_such.Thing"]}
    assert list(code_of_users([named, "a photo of sks person"])) == ["my_attack"]
    assert code_of_users({"class_path": "shortcut_lightning.attacks.AdvDM"}) == {}


def test_what_only_shows_does_not_decide(tmp_path: Path) -> None:
    for room in ("attacks", "report"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("x = 1\n")
    before = deciding_code(tmp_path)
    (tmp_path / "report" / "b.py").write_text("y = 1\n")
    assert deciding_code(tmp_path) == before
    (tmp_path / "attacks" / "b.py").write_text("y = 1\n")
    assert deciding_code(tmp_path) != before


def test_comments_do_not_change_the_deciding_code() -> None:
    source = '"""Says."""\n\ndef f(x):\n    "Doc."\n    return x + 1  # one more\n'
    assert said(source) == said("def f(x):\n\n    return (x + 1)\n")
    assert said(source) != said("def f(x):\n    return x + 2\n")
