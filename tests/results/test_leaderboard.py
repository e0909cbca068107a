"""The page that ranks, its rows and what a browser makes of it: python -m pytest tests/results"""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import asked, is_readable, needs_browser
from PIL import Image

from shortcut_lightning.bench import Matrix, tables
from shortcut_lightning.bench.cell_pictures import picture_of
from shortcut_lightning.bench.rows import Ran, Rows, Value
from shortcut_lightning.cli import main
from shortcut_lightning.report.page import render
from shortcut_lightning.results import leaderboard
from shortcut_lightning.results.suite import Suite

METRIC = "eval/avg_pocket"
EVIL = """<script>document.title = "broken"</script>'"</td>"""
SOURCE = "https://example.org/rows"
CONFIG = {"class_path": "x.Weak", "init_args": {"epsilon": 11}}
KNOWS = {"class_path": "x.Knows", "init_args": {"epsilon": 16, "purifiers": "blur.yaml"}}
SETTINGS: dict[str, Any] = {
    "base": ["base.yaml"],
    "factors": {
        "attack": {
            "clean": {},
            "weak": {"data.attack": "weak.yaml"},
            "strong": {"data.attack": "weak.yaml", "data.attack.epsilon": 16},
            "knows": {"data.attack": "knows.yaml"},
        },
        "defence": {"none": {}, "blur": {}},
    },
    "subjects": ["pocket:0-2"],
}
LEARNT = {
    **{"clean/none": 0.9, "clean/blur": 0.8, "weak/none": 0.6, "weak/blur": 0.7},
    **{"strong/none": 0.2, "strong/blur": 0.65, "knows/none": 0.5, "knows/blur": 0.4},
}
BOARD = """
    const rows = () => [...document.querySelectorAll('#board tbody tr:nth-child(odd)')]
        .map(row => [0, 1, 2, 4, 5].map(i => i === 1
            ? row.cells[1].firstChild.textContent : row.cells[i].textContent));
    const choose = (name, value) => {
        document.forms[0].elements[name].value = value;
        document.forms[0].dispatchEvent(new window.Event('change', {bubbles: true}));
    };
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one room: a matrix, its presets, its rows of three subjects."""
    room = tmp_path / "configs"
    (room / "results" / "some").mkdir(parents=True)
    for name, text in {"base": {}, "some": SETTINGS, "weak": CONFIG, "knows": KNOWS}.items():
        (room / f"{name}.yaml").write_text(yaml.safe_dump(text))
    (room / "results" / "page.md.jinja").write_text("nothing\n")
    rows = Rows()
    for number, cell in enumerate(Matrix(**SETTINGS).cells()):
        name = (cell.arm, cell.subject, cell.seed)
        rows.ran[name] = Ran(*name, "k", "c", "pocket 00ff", "torch 2", 1.0, "2026-01-01")
        value = LEARNT[cell.arm] + 0.001 * (number % 2)
        rows.values[name] = [Value(*name, METRIC, value, 8)]
    rows.write(room / "results" / "some")
    return tmp_path


def written(folder: Path, *options: str) -> str:
    page = folder / "page.html"
    main(["results", "--folder", str(folder / "configs"), "--leaderboard", str(page), *options])
    return page.read_text("utf-8")


def others(folder: Path, **changes: str) -> Path:
    """A file of another group with one line."""
    row = {
        **{"source": SOURCE, "family": "sd15", "attack": "theirs", "radius": "8"},
        **{"adaptive": "no", "defence": "jpeg", "subject": "a", "seed": "0"},
        **{"metric": METRIC, "value": "0.3"},
    }
    with (folder / "theirs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([leaderboard.FOREIGN, list((row | changes).values())])
    return folder / "theirs.csv"


def test_radius_and_knowledge_are_read_from_the_presets(folder: Path) -> None:
    entries = leaderboard.own(folder / "configs", folder / "page.html", METRIC)
    found = {e.attack: (e.radius, e.adaptive) for e in entries}
    assert found == {
        "": (None, False),
        "weak": (11, False),
        "strong": (16, False),
        "knows": (16, True),
    }
    assert {e.link for e in entries} == {"configs/some.yaml"}
    assert {e.mean.n for e in entries} == {3}


def test_every_factor_that_sets_the_attack_is_part_of_it(folder: Path) -> None:
    """By its last word on the radius, presets by their names, and none where nothing is attacked;
    a factor that changes more is a defence."""
    room = folder / "configs"
    attacks = {
        "weak": {"data.attack": "weak.yaml"},
        "preset": {"data.attack": "pocket/adaptive_code_sr"},
        "unused": {"data.attack": "weak.yaml", "data.attack_share": 0},
    }
    radii = {"r11": {}, "r16": {"data.attack.epsilon": 16}}
    factors = {"attack": attacks, "radius": radii, "defence": SETTINGS["factors"]["defence"]}
    settings = SETTINGS | {"factors": factors, "subjects": ["pocket:0"]}
    (room / "some.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    rows = Rows()
    for cell in Matrix(**settings).cells():
        rows.ran[cell.name] = Ran(*cell.name, "k", "c", "pocket 00ff", "torch 2", 1.0, "2026-01-01")
        rows.values[cell.name] = [Value(*cell.name, METRIC, 0.5, 8)]
    rows.write(room / "results" / "some")
    entries = leaderboard.own(room, folder / "page.html", METRIC)
    assert {(e.attack, e.radius, e.adaptive) for e in entries} == {
        ("weak/r11", 11, False),
        ("weak/r16", 16, False),
        ("preset/r11", 16, True),
        ("preset/r16", 16, True),
        ("", None, False),
    }
    assert {e.defence for e in entries} == {"none", "blur"}


@needs_browser
def test_the_worst_case_ranks(folder: Path, tmp_path: Path) -> None:
    script = BOARD + "const attacks = rows(); choose('side', 'defence'); return [attacks, rows()];"
    attacks, defences = asked(written(folder), script, tmp_path)
    assert [(r, n, w) for r, n, _, w, _ in attacks] == [
        ("1", "knows", "none"),  # .5, though blur alone leaves .4
        ("2", "strong", "blur"),  # .65, though undefended .2
        ("3", "weak", "blur"),
    ]
    assert [(n, w, met) for _, n, _, w, met in defences] == [
        ("blur", "knows (16/255)", "3"),
        ("none", "strong (16/255)", "3"),
    ]


@needs_browser
def test_it_sorts_filters_and_opens(folder: Path, tmp_path: Path) -> None:
    script = (
        BOARD
        + """
        const names = () => rows().map(row => row[1]);
        const sort = title => [...document.querySelectorAll('thead button')]
            .find(button => button.textContent === title).click();
        const said = {};
        sort('method'); said.up = names();
        sort('method'); said.down = names();
        sort('#');
        choose('adaptive', 'no'); said.plain = names(); choose('adaptive', '');
        choose('radius', '=11'); said.small = names(); choose('radius', '');
        choose('subject', '=pocket:1'); said.one = rows()[0][2]; choose('subject', '');
        said.mean = rows()[0][2];
        const row = document.querySelector('#board tbody tr');
        said.before = row.nextSibling.hidden;
        row.querySelector('button').click();
        said.after = row.nextSibling.hidden;
        said.cell = row.nextSibling.textContent;
        said.link = row.nextSibling.querySelector('a').getAttribute('href');
        return said;"""
    )
    said = asked(written(folder), script, tmp_path)
    assert said["up"] == ["knows", "strong", "weak"]
    assert said["down"] == said["up"][::-1]
    assert said["plain"] == ["strong", "weak"]
    assert said["small"] == ["weak"]
    assert "[" in said["mean"]
    assert said["mean"].endswith("n 3")
    assert "[" not in said["one"]
    assert said["one"].endswith("n 1")
    assert said["before"]
    assert not said["after"]
    assert "blur" in said["cell"]
    assert "some.yaml" in said["cell"]
    assert said["link"] == "configs/some.yaml"


@needs_browser
def test_an_opened_cell_shows_its_pictures(folder: Path, tmp_path: Path) -> None:
    strip = picture_of(folder / "configs" / "results" / "some", "weak/blur")
    strip.parent.mkdir()
    Image.new("RGB", (384, 64), "teal").save(strip)
    script = (
        BOARD
        + """
        return [...document.querySelectorAll('.strip')].map(image =>
            [image.naturalWidth, image.alt, image.closest('.opponent').textContent]);"""
    )
    ((width, alt, said),) = asked(written(folder), script, tmp_path)
    assert width == 384
    assert "what was learnt" in alt
    assert "blur" in said


@needs_browser
def test_names_with_markup_stay_text(folder: Path, tmp_path: Path) -> None:
    theirs = others(folder, attack=EVIL, defence=EVIL, subject=EVIL, family=EVIL)
    page = written(folder, "--foreign", f"[{theirs}]")
    names, title = asked(page, BOARD + "return [rows().map(r => r[1]), document.title];", tmp_path)
    assert EVIL in names
    assert title == "Leaderboard"


def board(folder: Path) -> str:
    return written(folder)


def board_of_long_names(folder: Path) -> str:
    theirs = others(folder, attack=EVIL * 3, defence="x" * 90, family="y" * 90)
    return written(folder, "--foreign", f"[{theirs}]")


def table(folder: Path) -> str:
    recipe = folder / "configs" / "some.yaml"
    suite = Suite(recipe, folder / "configs" / "results" / "some")
    return render(tables.page(suite.matrix, suite.table))


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("made", [board, board_of_long_names, table])
def test_readable_on_a_phone_and_in_the_dark(
    made, dark: bool, folder: Path, tmp_path: Path
) -> None:
    is_readable(made(folder), tmp_path, dark)


def test_another_groups_rows_are_taken(folder: Path) -> None:
    (entry,) = leaderboard.foreign(others(folder), METRIC)
    assert (entry.attack, entry.radius, entry.adaptive) == ("theirs", 8.0, False)
    assert (entry.subjects, entry.link) == ({"a": 0.3}, SOURCE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": "javascript:alert(1)"}, "line 2: source is 'javascript:alert"),
        ({"adaptive": "maybe"}, "line 2: adaptive is 'maybe'; allowed: yes, no"),
        ({"value": "nan"}, "line 2: value is 'nan'; allowed: a finite number"),
        ({"radius": "big"}, "line 2: radius is 'big'"),
        ({"defence": ""}, "line 2: defence is empty"),
        ({"metric": "eval/x"}, "has no rows of 'eval/avg_pocket'"),
    ],
)
def test_rows_that_are_not_valid_are_named(
    changes: dict[str, str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        written(folder, "--foreign", f"[{others(folder, **changes)}]")
    assert says in capsys.readouterr().err
    assert not (folder / "page.html").exists()


def test_a_metric_that_the_matrix_does_not_show_ranks_too(folder: Path) -> None:
    recipe = folder / "configs" / "some.yaml"
    recipe.write_text(yaml.safe_dump(SETTINGS | {"metrics": ["eval/other"]}))
    entries = leaderboard.own(folder / "configs", folder / "page.html", METRIC)
    assert len(entries) == len(LEARNT)
    assert METRIC in written(folder, f"--metric={METRIC}")
    assert METRIC not in Suite(recipe, folder / "configs/results/some").table.values


def test_a_metric_that_nobody_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        written(folder, "--metric", "eval/none")
    assert "--metric is 'eval/none'" in capsys.readouterr().err
