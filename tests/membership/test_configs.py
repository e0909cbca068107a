"""The recipes of `configs/audit` are read as they are: pytest tests/membership/test_configs.py"""

from pathlib import Path

import pytest

from shortcut_lightning.membership import CLiDThreshold, ImportantWords
from shortcut_lightning.membership.__main__ import main, parser
from shortcut_lightning.membership.audit import Audit

FOLDER = Path(__file__).parents[2] / "configs" / "audit"
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if "\naudit:" in path.read_text())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_makes_an_audit(path: Path) -> None:
    reader = parser()
    audit = reader.instantiate(reader.parse_args(["--config", str(path)])).audit
    assert isinstance(audit, Audit)
    assert audit.headline == "CLiD_th"
    assert sum(score.needs_captions for score in audit.scores.values()) >= 2


def test_the_paper_s_recipe_takes_words_by_importance() -> None:
    reader = parser()
    arguments = ["--config", str(FOLDER / "clid_paper.yaml"), "--audit.seed", "3"]
    audit = reader.instantiate(reader.parse_args(arguments)).audit
    score = audit.scores["CLiD_th"]
    assert isinstance(score, CLiDThreshold)
    assert isinstance(score.reducer, ImportantWords)
    assert score.queries == 15
    assert audit.seed == 3


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--audit.target", str({"pretrained_model_name_or_path": str(tmp_path)})]
    arguments += [
        "--audit.members",
        "a",
        "--audit.nonmembers",
        "b",
        "--output",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "model_index.json" in error
    assert error.count("\n") == 1
