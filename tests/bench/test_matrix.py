"""The matrix without a model: arms, command lines, going on, tables.

python -m pytest tests/bench/test_matrix.py
"""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from scipy.stats import wilcoxon as scipys

from shortcut_lightning.bench import Claim, Matrix
from shortcut_lightning.bench.matrix import expanded
from shortcut_lightning.bench.paths import content, written
from shortcut_lightning.bench.results import Difference, collect, holm, paired, verdict
from shortcut_lightning.bench.rows import Ran, Rows
from shortcut_lightning.bench.runner import Runner
from shortcut_lightning.bench.tables import markdown, summary, write
from shortcut_lightning.bench.workers import visible_gpus
from shortcut_lightning.files.code import deciding_code

CONFIGS = Path(__file__).parents[2] / "configs" / "bench"
FACTORS: dict[str, Any] = {
    "attack": {"clean": {}, "noise": {"data.attack": "noise.yaml"}},
    "defence": {"none": {}, "jpeg": {"data.purifiers": "jpeg.yaml"}},
    "sampling": {"plain": {}, "negative": {"data.decoupling.negative": True}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("base", "noise", "jpeg"):
        (tmp_path / f"{name}.yaml").write_text("{}\n")
    return tmp_path


def matrix(folder: Path, **changes: Any) -> Matrix:
    settings: dict[str, Any] = {
        "base": ["base.yaml"],
        "factors": FACTORS,
        "subjects": ["pocket:0-1"],
        "sampling": "sampling",
        "output_dir": str(folder / "out"),
    }
    return Matrix(**(settings | changes))


class Runs:
    """Stands for the program: leaves a report and a checkpoint, as a run does."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.fail_at = ""

    def __call__(self, command: list[str]) -> None:
        options = dict(w.lstrip("-").split("=", 1) for w in command if "=" in w)
        if self.fail_at and self.fail_at in options["name"]:
            raise RuntimeError("power cut")
        self.commands.append(command)
        if command[0] == "test":
            assert Path(options["ckpt_path"]).is_file()
        parent = Path(options["output_dir"]) / options["name"]
        run = parent / f"version_{len(list(parent.glob('version_*')))}"
        (run / "samples" / "tuned").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(run / "samples" / "tuned" / "00000.png")
        if command[0] == "fit":
            (run / "checkpoints").mkdir()
            (run / "checkpoints" / "last.ckpt").touch()
        subject = int(options["data.instance_data_dir"].removeprefix("pocket:"))
        value = subject + (10 if "data.attack" in options else 0)
        entry = {"value": value, "low": value, "high": value, "n": 4}
        report = {"metrics": {"eval/x": entry, "base/x": entry}, "seconds": {"perturb": 2.0}}
        (run / "report.json").write_text(json.dumps(report))


def runner(of: Matrix, folder: Path, runs: Runs) -> Runner:
    return Runner(of, folder, runs, tell=lambda line: None)


def test_arms_are_combinations_without_what_is_skipped(folder: Path) -> None:
    arms = ["/".join(arm) for arm in matrix(folder, skip=["clean/jpeg*", "*/none/neg*"]).arms()]
    assert arms == [
        "clean/none/plain",
        "noise/none/plain",
        "noise/jpeg/plain",
        "noise/jpeg/negative",
    ]


def test_a_cell_is_an_ordinary_command_line(folder: Path) -> None:
    settings = {"trainer": {"max_steps": 3}, "data.evaluation.prompts": ["a", "b"]}
    of = matrix(folder, settings=settings)
    cell = next(c for c in of.cells() if c.arm == "noise/jpeg/negative")
    assert of.command(cell, folder, "last.ckpt") == [
        "test",
        "--config",
        str(folder / "base.yaml"),
        "--seed_everything=0",
        "--data.instance_data_dir=pocket:0",
        "--trainer.max_steps=3",
        '--data.evaluation.prompts=["a", "b"]',
        f"--data.attack={folder / 'noise.yaml'}",
        f"--data.purifiers={folder / 'jpeg.yaml'}",
        "--data.decoupling.negative=true",
        f"--output_dir={folder / 'out' / 'pocket-0' / 'seed0'}",
        "--name=noise-jpeg-negative",
        "--trainer.devices=1",
        "--ckpt_path=last.ckpt",
    ]
    assert cell.trained_as == "noise/jpeg/plain"


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e-5, 2.0, None, True, ["a", 1]])
def test_a_command_line_has_values_as_yaml_reads_them(value: object, tmp_path: Path) -> None:
    back = yaml.safe_load(written(value, tmp_path))
    assert (float(back) if isinstance(value, float) else back) == value


def test_files_are_located_wherever_they_are_named(folder: Path) -> None:
    copies = [{"purifiers": "jpeg.yaml"}, {}, {"purifiers": "unknown.yaml"}]
    back = yaml.safe_load(written(copies, folder))
    assert back == [{"purifiers": str(folder / "jpeg.yaml")}, *copies[1:]]


def test_a_cell_is_known_by_what_decides_it_wherever_it_lies(folder: Path) -> None:
    def key(where: Path, **changes: object) -> str:
        of = matrix(where, subjects=["dog"], **changes)
        return of.key(next(c for c in of.cells() if c.arm == "noise/jpeg/negative"), where)

    (folder / "dog").mkdir()
    (folder / "dog" / "a.png").write_bytes(b"a")
    first = key(folder)
    elsewhere = folder / "elsewhere"
    shutil.copytree(folder, elsewhere)
    assert key(elsewhere) == first
    noise = elsewhere / "noise.yaml"
    noise.write_text("# a remark\n" + noise.read_text())
    assert key(elsewhere) == first
    (elsewhere / "dog" / "b.png").write_bytes(b"b")
    assert key(elsewhere) != first
    (elsewhere / "dog" / "b.png").unlink()
    noise.write_text("epsilon: 9\n")
    assert key(elsewhere) != first
    assert key(folder, settings={"trainer.max_steps": 9}) != first


def test_several_devices_for_a_cell_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer\.devices cannot be set in a matrix"):
        matrix(folder, settings={"trainer": {"devices": 2}})


def test_workers_take_a_gpu_each() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,5"}) == ["2", "5"]


def test_a_cell_whose_notes_were_cut_off_runs_again(folder: Path) -> None:
    runs, of = Runs(), matrix(folder)
    runner(of, folder, runs).all()
    whole, cell = len(runs.commands), of.cells()[-1]
    (cell.folder(Path(of.output_dir)) / "cell.json").write_text("")
    assert len(runner(of, folder, runs).reports()) == len(of.cells()) - 1
    runner(of, folder, runs).all()
    assert len(runs.commands) > whole
    assert len(runner(of, folder, runs).reports()) == len(of.cells())


def test_folders_of_subjects_may_hold_references(folder: Path) -> None:
    for name in ("instance", "reference"):
        (folder / "dog" / name).mkdir(parents=True)
    of = matrix(folder, subjects=["dog"])
    command = of.command(of.cells()[0], folder)
    assert f"--data.instance_data_dir={folder / 'dog' / 'instance'}" in command
    assert f"--data.reference_data_dir={folder / 'dog' / 'reference'}" in command
    assert expanded("pocket:3-5") == ["pocket:3", "pocket:4", "pocket:5"]


def test_levels_of_sampling_share_one_training(folder: Path) -> None:
    runs = Runs()
    of = matrix(folder)
    runner(of, folder, runs).all()
    assert [command[0] for command in runs.commands] == ["fit", "test"] * 8
    assert not list((folder / "out").rglob("last.ckpt"))


def test_it_goes_on_where_it_was_stopped(folder: Path) -> None:
    runs = Runs()
    of = matrix(folder)
    whole = len(of.cells())
    stopped = runner(of, folder, runs)

    def stop(command: list[str]) -> None:
        if len(runs.commands) == 5:
            raise KeyboardInterrupt
        runs(command)

    stopped.run = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.all()
    runner(of, folder, runs).all()
    assert len(runs.commands) == whole  # the fifth cell was a training, whose evaluation follows
    runner(of, folder, runs).all()
    assert len(runs.commands) == whole
    # An evaluation that is missing brings its training back, whose weights were not kept.
    (folder / "out/pocket-0/seed0/noise-jpeg-negative/cell.json").unlink()
    runner(of, folder, runs).all()
    assert [command[0] for command in runs.commands[whole:]] == ["fit", "test"]


def test_no_weights_of_other_settings_are_evaluated(folder: Path) -> None:
    """A row finishes the cell that trains, and an older run of it has kept its weights."""
    runs, settings = Runs(), {"subjects": ["pocket:0"], "keep_checkpoints": True}
    runner(matrix(folder, **settings, arms={"clean/none/plain": 0}), folder, runs).all()
    settings |= {"arms": {"clean/none/*": 0}, "settings": {"trainer.max_steps": 9}}
    of = matrix(folder, **settings)
    cell = of.cells()[0]
    row = Ran(*cell.name, of.key(cell, folder), deciding_code(), "pocket", "", 1.0, "")
    kept = Rows({cell.name: row}, {cell.name: []})
    Runner(of, folder, runs, tell=lambda line: None, kept=kept).all()
    assert [command[0] for command in runs.commands] == ["fit", "fit", "test"]


def test_a_changed_file_runs_its_cells_again(folder: Path) -> None:
    runs, of = Runs(), matrix(folder)
    runner(of, folder, runs).all()
    before = len(runs.commands)
    (folder / "jpeg.yaml").write_text("[]\n")
    runner(of, folder, runs).all()
    again = runs.commands[before:]
    assert len(again) == 8
    assert all(any("jpeg.yaml" in word for word in command) for command in again)


def test_weights_and_pictures_that_changed_run_their_cells_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named from where a run is started; prompts with a stroke are no files."""
    monkeypatch.chdir(folder)
    (folder / "adapter.safetensors").write_bytes(b"a")
    (folder / "class images").mkdir()
    (folder / "class images" / "0.png").write_bytes(b"b")
    settings = {"model.lora": "adapter.safetensors", "data.class_data_dir": "./class images"}
    of = matrix(folder, settings=settings | {"data.prompt": "a dog/cat, 4.5 m " * 40})
    cell = of.cells()[0]
    keys = [of.key(cell, folder)]
    (folder / "adapter.safetensors").write_bytes(b"c")
    keys.append(of.key(cell, folder))
    (folder / "class images" / "0.png").write_bytes(b"d")
    keys.append(of.key(cell, folder))
    assert len(set(keys)) == 3
    assert of.key(cell, folder) == keys[-1]


def test_large_files_are_told_apart_by_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortcut_lightning.bench.paths._LARGE", 10)
    monkeypatch.setattr("shortcut_lightning.bench.paths._END", 4)
    held = []
    for text in ("abcd......wxyz", "abcd......wxyZ", "Abcd......wxyz", "abcd.......wxyz"):
        file = tmp_path / f"{len(held)}.bin"
        file.write_text(text)
        held.append(content(str(file), tmp_path))
    assert len(set(held)) == 4


def test_a_run_without_a_report_is_not_finished_by_an_older_one(folder: Path) -> None:
    runs, of = Runs(), matrix(folder)
    runner(of, folder, runs).all()
    silent = matrix(folder, settings={"evaluate_after_fit": False})
    nothing: list[list[str]] = []
    again = Runner(silent, folder, nothing.append, tell=lambda line: None)
    again.all()
    assert len(again.failures) == 8  # of each training, whose evaluations then wait
    assert "left no report.json" in next(iter(again.failures.values()))
    assert not again.reports()


def test_a_broken_cell_is_noted_and_the_others_go_on(folder: Path) -> None:
    runs, of = Runs(), matrix(folder)
    runs.fail_at = "noise-none-plain"
    with_failure = runner(of, folder, runs)
    with_failure.all()
    assert list(with_failure.failures) == [f"noise/none/plain, pocket:{i}, seed 0" for i in (0, 1)]
    assert len(runs.commands) == 12
    runs.fail_at = ""
    runner(of, folder, runs).all()
    assert len(runs.commands) == 16
    runs.fail_at = "clean-none-plain"
    with pytest.raises(RuntimeError, match="power cut"):  # a mistake that all cells share
        runner(matrix(folder, output_dir=str(folder / "new")), folder, runs).all()


def test_two_at_work_do_nothing_twice(folder: Path) -> None:
    """The second begins while the first is at its first cell, and finds the rest: other subjects
    first, then the other trainings of that one."""
    runs, of = Runs(), matrix(folder)
    told: list[str] = []

    def run(command: list[str]) -> None:
        if not runs.commands:
            runs(command)
            Runner(of, folder, runs, told.append).all()
        else:
            runs(command)

    Runner(of, folder, run, tell=lambda line: None).all()
    assert told[0] == "Another process is at work on pocket:0, seed 0"
    names = [tuple(w for w in c if w.startswith(("--name", "--output"))) for c in runs.commands]
    assert len(set(names)) == len(names) == len(of.cells())
    subjects = "".join(
        w[-1] for c in runs.commands for w in c if w.startswith("--data.instance_data_dir")
    )
    assert subjects == "0" + "1" * 8 + "0" * 7


def test_arms_have_their_order_and_their_subjects(folder: Path) -> None:
    of = matrix(
        folder,
        subjects=["pocket:0-2"],
        arms={"*/none/plain": 0, "noise/jpeg/*": 1, "noise/none/*": 2},
    )
    assert [(cell.arm, cell.subject, cell.trained_as) for cell in of.cells()] == [
        ("clean/none/plain", "pocket:0", "clean/none/plain"),
        ("noise/none/plain", "pocket:0", "noise/none/plain"),
        ("noise/none/negative", "pocket:0", "noise/none/plain"),
        ("clean/none/plain", "pocket:1", "clean/none/plain"),
        ("noise/none/plain", "pocket:1", "noise/none/plain"),
        ("noise/none/negative", "pocket:1", "noise/none/plain"),
        ("clean/none/plain", "pocket:2", "clean/none/plain"),
        ("noise/none/plain", "pocket:2", "noise/none/plain"),
        ("noise/jpeg/plain", "pocket:0", "noise/jpeg/plain"),
        ("noise/jpeg/negative", "pocket:0", "noise/jpeg/plain"),
    ]


def test_tables(folder: Path) -> None:
    of = matrix(
        folder,
        subjects=["pocket:0-5"],
        metrics=["eval/x", "seconds/perturb"],
        against=["clean/none/plain"],
        claims=[Claim("Noise adds", "eval/x", "noise/none/plain", "clean/none/plain")],
    )
    run = runner(of, folder, Runs())
    run.all()
    table = collect(of, run.reports())
    assert table.values["eval/x"]["noise/jpeg/plain"] == {f"pocket:{i}": 10 + i for i in range(6)}
    assert table.estimate("eval/x", "clean/none/plain").value == 2.5
    assert table.difference("eval/x", "noise/none/plain", "clean/none/plain") == Difference(
        "clean/none/plain", 10, 10, 10, 6, 0.03125
    )
    text = markdown(of, table)
    assert "| Noise adds | eval/x | +10.000 [+10.000, +10.000] | 6 | 0.031 | holds |" in text
    assert "48 of 48 cells" in text
    assert summary(table)["eval/x/noise/jpeg/plain"] == 12.5
    paths = write(of, table, folder / "tables")
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (8 + 7)
    assert rows[0]["value"] == "2.5"
    page = paths[2].read_text()
    assert "data:image/png;base64" in page
    assert "holds" in page


def test_pairs_are_by_subject() -> None:
    a = {"p": 1.0, "q": 2.0, "r": 5.0, "only here": 9.0}
    b = {"q": 1.5, "p": 0.0, "r": 3.0}
    difference = paired(a, b)
    assert difference.n == 3
    assert difference.mean == pytest.approx((1 + 0.5 + 2) / 3)
    assert difference.p == pytest.approx(scipys([1, 0.5, 2]).pvalue)
    assert paired(a, a).p == 1
    assert torch.tensor(paired(a, {}).mean).isnan()


@pytest.mark.parametrize(
    ("low", "high", "p", "higher", "expected"),
    [
        (0.1, 0.3, 0.04, True, "holds"),
        (0.1, 0.3, 0.04, False, "does not hold"),
        (-0.3, -0.1, 0.04, False, "holds"),
        (-0.1, 0.1, 0.04, True, "undecided"),
        (0.1, 0.3, 0.06, True, "undecided"),
        (0.1, 0.3, math.nan, True, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, p: float, higher: bool, expected: str) -> None:
    claim = Claim("", "", "", "", higher)
    assert verdict(claim, Difference("", (low + high) / 2, low, high, 20, 0.01), p) == expected


def test_many_claims_are_held_to_more() -> None:
    assert holm([0.01, 0.04, math.nan, 0.03]) == pytest.approx(
        [0.04, 0.09, math.nan, 0.09],
        nan_ok=True,  # the one to come counts
    )
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.01, 0.02], asked=4) == pytest.approx([0.04, 0.06])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects": []}, "needs base, factors, subjects and seeds"),
        ({"factors": {"attack": {"a/b": {}}}}, "factors.attack: a factor needs levels"),
        ({"sampling": "smpling"}, "sampling is 'smpling', which is no factor"),
        ({"skip": ["*"]}, "arms and skip leave no arm"),
        ({"arms": {"clean/none/plain": 0, "nois/*": 0}}, "arms: 'nois/\\*' fits no arm"),
        ({"against": ["none"]}, "against: 'none' must have a level or"),
        ({"against": ["*/nonne/*"]}, "names 'nonne', which is no level of defence; levels: none,"),
        (
            {"claims": [Claim("A", "x", "clean/no", "noise/jpeg/plain")]},
            "names the arm 'clean/no', which is not in the matrix",
        ),
    ],
)
def test_mistakes_are_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matrix(folder, **changes)


MATRICES = [file for file in sorted(CONFIGS.glob("*.yaml")) if "\nfactors:" in file.read_text()]


@pytest.mark.parametrize("file", MATRICES, ids=lambda file: file.stem)
def test_shipped_matrices(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    claims = [Claim(**claim) for claim in content.pop("claims", [])]
    of = Matrix(**content, claims=claims)
    cells = [cell for cell in of.cells() if cell.subject == of.subjects[0]]
    assert cells
    for cell in cells:
        for word in of.command(cell, file.parent):
            value = word.partition("=")[2] or word
            assert not value.endswith(".yaml") or Path(value).is_file(), value
