"""Rows that outlive their runs, and the pages rendered from them: python -m pytest tests/bench"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from shortcut_lightning.bench import Claim, Matrix
from shortcut_lightning.bench.cell_pictures import STRIP, keep_pictures, picture_of
from shortcut_lightning.bench.results import collect, decided
from shortcut_lightning.bench.rows import Rows, gathered
from shortcut_lightning.bench.runner import Runner
from shortcut_lightning.bench.tables import markdown
from shortcut_lightning.bench.twins import taken
from shortcut_lightning.cli import main
from shortcut_lightning.files.code import deciding_code, deciding_weights, tensors_alone
from shortcut_lightning.results import pages
from shortcut_lightning.results.suite import Suite

CONFIGS = Path(__file__).parents[2] / "configs"
SETTINGS: dict[str, Any] = {
    "base": ["base.yaml"],
    "factors": {"attack": {"clean": {}, "noise": {"data.attack": "x"}}},
    "subjects": ["pocket:0-7"],
    "against": ["clean"],
}
CLAIM = {"text": "It harms", "metric": "eval/identity", "arm": "noise", "against": "clean"}


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A folder with a matrix, the reports of its cells, and a page's template."""
    (tmp_path / "base.yaml").write_text("{}\n")
    (tmp_path / "some.yaml").write_text(
        yaml.safe_dump(SETTINGS | {"claims": [CLAIM | {"higher": False}]})
    )
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "page.md.jinja").write_text(
        "{% set some = suite('some') %}\n"
        "{{ some.cells }} cells\n{{ some.claims() }}\n{{ some.arms(['eval/identity']) }}\n"
        "{{ some.mean('eval/identity', 'noise') }} {{ some.difference('eval/identity', 'noise', "
        "'clean') }}\n{{ figure(some, 'drawn', 'eval/identity', ['*']) }}\n"
    )
    return tmp_path


def finished(room: Path, matrix: Matrix, count: int = 99) -> Runner:
    """A runner that finds the first `count` cells of a matrix finished."""
    matrix.output_dir = str(room / "runs")
    runner = Runner(matrix, room, lambda words: None, lambda line: None)
    for number, cell in enumerate(matrix.cells()[:count]):
        path = cell.folder(room / "runs") / "version_0" / "report.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        value = 0.9 + number / 1000 - 0.3 * (cell.arm == "noise")
        metrics = {"eval/identity": {"value": value, "n": 32}, "eval/none": {"value": None, "n": 0}}
        facts = {"versions": {"torch": "2"}, "created": "2026-01-01", "seconds": {"perturb": 2.5}}
        path.write_text(json.dumps({"metrics": metrics, "model": "pocket 00ff"} | facts))
        state = {"key": matrix.key(cell, room), "run": "version_0", "seconds": 1.5}
        state |= {"code": deciding_code(), "weights": deciding_weights()}
        (path.parents[1] / "cell.json").write_text(json.dumps(state))
    return runner


def test_kept_rows_stand_for_runs_that_are_gone(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = Matrix(**SETTINGS)
    rows = gathered(finished(room, matrix))
    matrix.output_dir = str(room / "elsewhere")
    told: list[str] = []
    ran: list[str] = []

    def again(keep_stale: bool = False) -> Runner:
        told.clear()
        return Runner(matrix, room, ran.extend, told.append, keep_stale, rows)

    again().all()
    assert not ran
    assert told == ["16 cells are finished by the rows that are kept of them"]
    assert again().without_runs() == rows
    table = collect(matrix, [], again().without_runs())
    assert (table.finished, table.wanted) == (16, 16)
    assert markdown(matrix, table) == markdown(
        matrix, collect(matrix, finished(room, matrix).reports())
    )
    name = ("noise", "pocket:3", 0)
    rows.ran[name] = rows.ran[name]._replace(key="of other settings")
    matrix.output_dir = str(room / "elsewhere")
    assert [again().is_pending(group) for group in again().groups()].count(True) == 1
    assert len(again().without_runs().ran) == 15
    monkeypatch.setattr("shortcut_lightning.bench.runner.deciding_code", lambda: "another")
    assert not again().without_runs().ran
    assert len(again(keep_stale=True).without_runs().ran) == 15
    again().tell_stale()
    assert [line.partition(" finished")[0] for line in told] == ["15", "1"]


def test_other_built_in_weights_finish_nothing(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of before the weights were noted are told by their model's fingerprint; those of when
    tensors alone were noted stand while these are the same."""
    matrix = Matrix(**SETTINGS)
    ran, rows = finished(room, matrix), gathered(finished(room, matrix))
    matrix.output_dir = str(room / "elsewhere")
    kept = Runner(matrix, room, lambda words: None, lambda line: None, True, rows)
    earlier = {name: row._replace(weights="") for name, row in rows.ran.items()}
    older = Runner(matrix, room, print, print, True, Rows(earlier, rows.values))
    monkeypatch.setattr("shortcut_lightning.bench.code._fingerprint", lambda name: "00ff")
    assert [len(each.without_runs().ran) for each in (kept, older)] == [16, 16]
    monkeypatch.setattr("shortcut_lightning.bench.code._fingerprint", lambda name: "00fe")
    assert [len(each.without_runs().ran) for each in (kept, older)] == [16, 0]
    monkeypatch.setattr("shortcut_lightning.bench.runner.deciding_weights", lambda: "others")
    assert not kept.without_runs().ran
    former = {name: row._replace(weights=tensors_alone()) for name, row in rows.ran.items()}
    known = Runner(matrix, room, print, print, True, Rows(former, rows.values))
    assert len(known.without_runs().ran) == 16
    matrix.output_dir = str(room / "runs")
    assert not ran.reports()
    assert ran.stale(matrix.cells()[0]) == "other built-in weights"


def settings_of(words: list[str]) -> dict[str, Any]:
    """Stands for the command line's parser: options by name, and a default."""
    options = dict(word.lstrip("-").split("=", 1) for word in words if "=" in word)
    return {"data.attack": "none"} | options


def test_the_same_settings_under_another_name_are_taken_over(room: Path) -> None:
    """Not of rows that were made with other settings, and not of other people."""
    rows = gathered(finished(room, Matrix(**SETTINGS)))
    stale = ("noise", "pocket:2", 0)
    rows.ran[stale] = rows.ran[stale]._replace(key="of other settings")
    factors = {"who": {"x": {"data.attack": "x"}, "no": {"data.attack": "none"}, "y": {"a": 1}}}
    other = Matrix(["base.yaml"], factors, ["pocket:2-9"])
    found = taken(other, room, Matrix(**SETTINGS), room, rows, settings_of)
    both = range(2, 8)
    assert set(found.ran) == {(arm, f"pocket:{n}", 0) for arm in ("x", "no") for n in both} - {
        ("x", "pocket:2", 0)
    }
    runner = Runner(other, room, lambda words: None, lambda line: None, kept=found)
    assert len(runner.without_runs().ran) == 11
    value = found.values["x", "pocket:5", 0][0]
    assert value == rows.values["noise", "pocket:5", 0][0]._replace(arm="x")
    assert not taken(other, room, Matrix(**SETTINGS), room, Rows(), settings_of).ran


def test_no_claim_vanishes(room: Path) -> None:
    """Its metric is in the table, asked for or not; what was not measured says so."""
    claims = [Claim(**CLAIM), Claim(**CLAIM | {"metric": "eval/identty"})]
    matrix = Matrix(**SETTINGS | {"metrics": ["eval/none"]}, claims=claims)
    table = collect(matrix, finished(room, matrix).reports())
    found = decided(table, matrix.claims, matrix.asked)
    assert [each.difference.n for each in found] == [8, 0]
    assert [each.verdict for each in found] == ["does not hold", "undecided"]
    assert "| It harms | eval/identty | – | 0 | – | not measured |" in markdown(matrix, table)


def test_tables_of_rows_equal_those_of_runs(room: Path) -> None:
    matrix = Matrix(**SETTINGS | {"metrics": ["eval/identity", "seconds/perturb"]})
    runner = finished(room, matrix)
    gathered(runner).write(room / "results" / "some")
    assert markdown(matrix, collect(matrix, [], gathered(runner))) == markdown(
        matrix, collect(matrix, runner.reports())
    )
    matrix.metrics = []
    suite = Suite(room / "some.yaml", room / "results" / "some")
    assert markdown(matrix, suite.table) == markdown(matrix, collect(matrix, runner.reports()))
    assert suite.cells == suite.people("noise") * 2 == 16
    assert suite.models == "pocket 00ff"
    assert suite.verdicts() == {"holds": 1, "does not hold": 0, "undecided": 0}


def test_factors_cross_in_a_table_where_the_first_people_were_all_run(room: Path) -> None:
    factors = SETTINGS["factors"] | {"defence": {"none": {}, "jpeg": {"data.purifiers": "x"}}}
    arms = {"clean/*": 3, "noise/none": 2, "noise/jpeg": 1}
    matrix = Matrix(**SETTINGS | {"factors": factors, "against": [], "arms": arms})
    gathered(finished(room, matrix)).write(room / "results" / "some")
    text = {"base": ["base.yaml"], "subjects": SETTINGS["subjects"], "factors": factors}
    (room / "some.yaml").write_text(yaml.safe_dump(text))
    suite = Suite(room / "some.yaml", room / "results" / "some")
    table = suite.crossed("eval/identity", ["noise", "*"], {"none": "none", "JPEG": "jpeg"}, 2)
    head, _, noise, clean = table.splitlines()
    assert head == "|  | none | JPEG |"
    assert noise.startswith("| noise | 0.9")
    assert noise.endswith("(2) | – |")
    assert clean.count("(2)") == 2
    assert len(suite.crossed("eval/identity", ["*"], {"": "none"}, 3).splitlines()) == 3


def test_rows_say_what_ran_and_are_taken_over_by_cell(room: Path) -> None:
    matrix = Matrix(**SETTINGS)
    kept = gathered(finished(room, matrix, 3))
    row = kept.ran["clean", "pocket:0", 0]
    assert (row.key, row.code) == (matrix.key(matrix.cells()[0], room), deciding_code())
    assert (row.seconds, row.versions) == (1.5, "torch 2")
    kept.add(gathered(finished(room, matrix, 5), code="newer"))
    kept.write(room / "rows")
    again = Rows.read(room / "rows")
    assert again == kept
    assert len(again.ran) == 5
    cells = (room / "rows" / "cells.csv").read_text().splitlines()
    older = "\n".join(line.rpartition(",")[0] for line in cells)
    (room / "rows" / "cells.csv").write_text(older)  # of before weights were noted
    assert {row.weights for row in Rows.read(room / "rows").ran.values()} == {""}
    assert sum(row.code == "newer" for row in again.ran.values()) == 5


def test_a_page_is_rendered_and_a_stale_one_named(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = Matrix(**SETTINGS)
    gathered(finished(room, matrix)).write(room / "results" / "some")
    main(["results", "--folder", str(room)])
    page = (room / "README.md").read_text()
    assert page.startswith("16 cells\n")
    assert "| It harms | eval/identity | -0.299 [-0.299, -0.299] | 8 | 0.008 | holds |" in page
    assert "![drawn](results/drawn.svg)" in page
    assert (room / "results" / "drawn.svg").read_text().count("<circle") == 2
    main(["results", "--folder", str(room), "--check", "true"])
    (room / "README.md").write_text(page.replace("16", "17"))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["results", "--folder", str(room), "--check", "true"])
    assert "README.md differs from its rows" in capsys.readouterr().err
    assert (room / "README.md").read_text().startswith("17")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("cells.csv", "arm,subject\n", "has the columns arm, subject"),
        ("values.csv", "arm,subject,seed,metric,value,n\nx,y,0,m,1\n", "line 2: 5 columns"),
        ("values.csv", "arm,subject,seed,metric,value,n\nx,y,0,m,1,2\n", "is not in cells.csv"),
    ],
)
def test_rows_that_do_not_fit_are_named(
    room: Path, file: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = Matrix(**SETTINGS)
    gathered(finished(room, matrix)).write(room / "results" / "some")
    (room / "results" / "some" / file).write_text(text)
    with pytest.raises(SystemExit):
        main(["results", "--folder", str(room)])
    assert said in capsys.readouterr().err


def test_rows_of_an_arm_that_the_matrix_has_not(room: Path) -> None:
    other = Matrix(**SETTINGS | {"factors": {"attack": {"clean": {}, "gone": {}}}})
    gathered(finished(room, other)).write(room / "results" / "some")
    with pytest.raises(ValueError, match=r"some.yaml has no arm 'gone'"):
        Suite(room / "some.yaml", room / "results" / "some")


def test_the_committed_pages_say_what_their_rows_say() -> None:
    for room in pages.rooms(CONFIGS):
        assert not pages.stale(pages.rendered(room)), room
    assert not pages.stale(pages.insets(CONFIGS))


def test_part_of_a_page_is_filled_in(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipes = room / "configs"
    (recipes / "insets").mkdir(parents=True)
    (room / "some.yaml").rename(recipes / "some.yaml")
    gathered(finished(room, Matrix(**SETTINGS))).write(recipes / "results" / "some")
    (recipes / "insets" / "PAGE.md.jinja").write_text("{{ suite('some').cells }} cells\n")
    (room / "PAGE.md").write_text(f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n")
    main(["results", "--folder", str(recipes)])
    filled = f"before\n{pages.BEGIN}\n16 cells\n{pages.END}\nafter\n"
    assert (room / "PAGE.md").read_text() == filled
    main(["results", "--folder", str(recipes), "--check", "true"])
    (room / "PAGE.md").write_text("before\n")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["results", "--folder", str(recipes)])
    assert "PAGE.md has no part between '<!-- results -->'" in capsys.readouterr().err


def test_a_strip_is_kept_for_each_arm(room: Path) -> None:
    runner, rows = finished(room, Matrix(**SETTINGS)), room / "results" / "some"
    assert keep_pictures(runner, rows) == 0  # these runs kept no pictures
    for cell, report in runner.reports():
        shade = 50 if cell.arm == "noise" else 200
        Image.new("RGB", (96, 32), (shade,) * 3).save(report.parent / STRIP)
        (report.parent / "samples" / "tuned").mkdir(parents=True)
        for number in range(4):
            name = report.parent / "samples" / "tuned" / f"{number}.png"
            Image.new("RGB", (32, 32), (0, 0, shade)).save(name)
    assert keep_pictures(runner, rows) == 2
    with Image.open(picture_of(rows, "noise")) as strip:
        assert strip.size == (6 * 64, 64)
        assert max(abs(value - 50) for value in strip.getpixel((20, 20))) <= 3
        assert strip.getpixel((250, 20))[0] <= 5
    assert keep_pictures(runner, rows) == 0  # what is there stays


def test_earlier_numbers_are_counted_and_those_that_differ_are_shown(room: Path) -> None:
    folder = room / "results" / "some"
    gathered(finished(room, Matrix(**SETTINGS))).write(folder)
    head = "arm,metric,value,people\n"
    of_two = {arm: f"{arm},eval/identity" for arm in ("clean", "noise")}
    suite = Suite(room / "some.yaml", folder)
    (folder / "earlier.csv").write_text(f"{head}{of_two['clean']},0.90,2\n{of_two['clean']},1,3\n")
    assert suite.again(["eval/identity"], 2) == "1 of 1 come out in every digit that was given."
    (folder / "earlier.csv").write_text(f"{head}{of_two['clean']},0.9,2\n{of_two['noise']},0.5,2\n")
    said = suite.again(["eval/identity"], 2)
    assert said.startswith("1 of 2 come out in every digit that was given; the others:\n\n| arm |")
    assert said.endswith("| noise | identity | 0.5 | 0.6 |")
    assert suite.again(["eval/none"], 2).startswith("0 of 0")
