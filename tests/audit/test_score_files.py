"""Scores that others measured, on the command line: pytest tests/audit/test_score_files.py"""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score, roc_curve

from shortcut_lightning.audit import binned
from shortcut_lightning.audit.controls import _gain
from shortcut_lightning.audit.evaluator import (
    FPRS,
    Features,
    _bootstrap,
    _numbers,
    evaluate,
)
from shortcut_lightning.audit.score_formats import read_columns, write_scores
from shortcut_lightning.cli import main
from shortcut_lightning.membership.base import Rule, first_column
from shortcut_lightning.membership.clid import CLiDThreshold
from shortcut_lightning.membership.roc import paired_error, placements

RNG = np.random.default_rng(0)
NAMES = ["pia", "loss"]
# High and low for members.
MEMBERS = RNG.normal((1.0, -0.4), size=(120, 2))
OTHERS = RNG.normal(size=(150, 2))
Audited = Callable[..., str]


def clid(n: int, shift: float) -> np.ndarray:
    loss = 0.09 + 0.02 * RNG.normal(size=(n, 1)) - 0.004 * shift
    return np.concatenate([loss, 2e-3 * (RNG.normal(size=(n, 4)) + shift)], 1)


def write_csv(path: Path, rows: np.ndarray, names: list[str] = NAMES) -> None:
    np.savetxt(path, rows, delimiter=",", header=",".join(names), comments="")


def save_tensors(path: Path, rows: np.ndarray) -> None:
    save_file({n: torch.from_numpy(rows[:, i].copy()) for i, n in enumerate(NAMES)}, path)


def save_parquet(path: Path, rows: np.ndarray, **more: list) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {n: rows[:, i] for i, n in enumerate(NAMES)} | more
    parquet.write_table(pa.table(columns), path)


KINDS: dict[str, Callable[[Path, np.ndarray], None]] = {
    ".csv": write_csv,
    ".txt": lambda path, rows: np.savetxt(path, rows, delimiter="\t"),
    ".tsv": lambda path, rows: np.savetxt(path, rows, delimiter=";"),
    ".TXT": np.savetxt,
    ".npy": np.save,
    ".safetensors": save_tensors,
    ".parquet": save_parquet,
}


@pytest.fixture
def audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Audited:
    """Runs the verb with options, whose {f} is the folder of files; returns what it says. Mistakes
    end with 2."""

    def run(*options: str, fails: bool = False) -> str:
        usual = ["audit", "--output", str(tmp_path / "out"), "--audit.statistics.resamples", "100"]
        told = [
            *usual,
            "--audit.statistics.permutations",
            "19",
            *(each.format(f=tmp_path) for each in options),
        ]
        capsys.readouterr()
        if not fails:
            main(told)
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as left:
            main(told)
        assert left.value.code == 2
        return capsys.readouterr().err

    return run


def pair(kind: str = ".csv", role: str = "", stem: str = "") -> list[str]:
    return [
        f"--audit.{role}member_scores", f"{{f}}/{stem}m{kind}",
        f"--audit.{role}nonmember_scores", f"{{f}}/{stem}n{kind}",
    ]  # fmt: skip


def report(folder: Path) -> dict:
    return json.loads((folder / "out/report.json").read_text())


def write(folder: Path, kind: str, stem: str = "", shift: float = 0.0) -> None:
    """Both files of one kind."""
    KINDS[kind](folder / f"{stem}m{kind}", MEMBERS + shift)
    KINDS[kind](folder / f"{stem}n{kind}", OTHERS + 2 * shift)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_says_what_scikit_learn_says(
    kind: str, tmp_path: Path, audited: Audited
) -> None:
    write(tmp_path, kind)
    names = NAMES if kind in (".csv", ".safetensors", ".parquet") else ["column 1", "column 2"]
    direction = f"{names[1]}=low,{names[0]}=high"  # safetensors has its columns in another order
    audited(*pair(kind), "--audit.direction", direction, "--audit.statistics.fprs", "[0.1, 0.01]")
    scores = report(tmp_path)["scores"]
    assert sorted(scores) == sorted(names)
    labels = np.repeat([1, 0], [len(MEMBERS), len(OTHERS)])
    for place, name in enumerate(NAMES):
        column = np.concatenate([MEMBERS, OTHERS])[:, place] * (1 if name == "pia" else -1)
        found = scores[names[place]]["target"]
        assert found["auc"]["value"] == pytest.approx(roc_auc_score(labels, column), abs=1e-12)
        fpr, tpr, _ = roc_curve(labels, column, drop_intermediate=False)
        for rate in found["rates"]:
            expected = tpr[fpr <= rate["fpr"]].max()
            assert rate["tpr_member"]["value"] == pytest.approx(expected, abs=1e-12)
        assert (found["n_members"], found["n_holdouts"]) == (120, 150)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0,1\n0.5,2\n1.5,3\n", ["0", "1"]),  # pandas, of columns without names
        (",0,1\n0,0.5,2\n1,1.5,3\n", ["column 1", "0", "1"]),  # with its index
        ("0,1\n1,0\n", ["column 1", "column 2"]),  # two flags, and no header
        ("# loss pia\n0.5 2\n1.5 3\n", ["loss", "pia"]),  # numpy.savetxt
        ("# loss,pia\n0.5,2\n1.5,3\n", ["loss", "pia"]),
        ("my own score\n0.5\n1.5\n", ["my own score"]),
    ],
)
def test_a_header_is_no_row(text: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(text)
    found = read_columns(tmp_path / "scores.csv")
    assert found.names == names
    assert len(found.rows) == 2
    if names[-1] in ("1", "pia"):
        assert found.rows[:, -2:].tolist() == [[0.5, 2.0], [1.5, 3.0]]


def test_columns_may_be_named_by_numbers(tmp_path: Path, audited: Audited) -> None:
    for name, rows in (("m", MEMBERS), ("n", OTHERS)):
        write_csv(tmp_path / f"{name}.csv", np.c_[np.arange(len(rows)), rows], ["", "0", "1"])
    audited(*pair(), "--audit.direction", "high,low", "--audit.score_columns", "[0, 1]")
    assert [*report(tmp_path)["scores"]] == ["0", "1"]


def test_the_page_names_what_needs_pictures(tmp_path: Path, audited: Audited) -> None:
    write(tmp_path, ".npy")
    said = audited(*pair(".npy"), "--audit.direction", "high,low")
    assert "Scores alone were given" in said
    page = (tmp_path / "out/report.html").read_text()
    for heading in (
        "Verdict",
        "Scores",
        "Curves",
        "Distribution",
        "The set as a whole",
        "Left out",
    ):
        assert f"{heading}</h2>" in page
    for left_out in ("Most surely members</h2>", "Controls</h2>", "access", "None"):
        assert left_out not in page
    assert "Caption controls, and deciding image by image" in page
    with (tmp_path / "out/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [len([r for r in rows if r["set"] == s]) for s in ("member", "non-member")] == [120, 150]
    tau = report(tmp_path)["scores"]["column 1"]["target"]["tau"]
    assert [r["flagged"] == "1" for r in rows] == [float(r["column 1"]) > tau for r in rows]


def test_thresholds_come_from_one_half_and_are_judged_on_the_other(
    tmp_path: Path, audited: Audited
) -> None:
    write(tmp_path, ".npy")
    audited(*pair(".npy"), "--audit.direction", "high,low")
    found = report(tmp_path)["scores"]["column 1"]["target"]
    share = found["realised_tpr"]["value"]
    assert share * 60 == pytest.approx(round(share * 60), abs=1e-9)
    assert any("audit.shadow_member_scores" in each for each in report(tmp_path)["warnings"])


def test_several_columns_are_features_of_the_set(tmp_path: Path, audited: Audited) -> None:
    write(tmp_path, ".csv")
    audited(*pair(), "--audit.direction", "high,low")
    assert report(tmp_path)["dataset"]["2 columns"]["p_value"] == pytest.approx(1 / 20)
    audited(*pair(), "--audit.direction", "high", "--audit.score_columns", "pia")
    assert report(tmp_path)["dataset"] == {}
    assert [*report(tmp_path)["scores"]] == ["pia"]


def test_scores_on_a_base_model_are_the_control(tmp_path: Path, audited: Audited) -> None:
    write(tmp_path, ".npy")
    np.save(tmp_path / "basem.npy", RNG.normal(size=MEMBERS.shape))
    np.save(tmp_path / "basen.npy", RNG.normal(size=OTHERS.shape))
    said = audited(*pair(".npy"), *pair(".npy", "base_", "base"), "--audit.direction", "high,low")
    assert "audit.base" not in said
    found = report(tmp_path)
    assert found["scores"]["column 1"]["base"]["passed"]
    assert found["scores"]["column 1"]["target_minus_base"]["auc"]["value"] > 0.6
    assert found["dataset"]["2 columns"]["p_base"] > 0.05
    assert "model that cannot know" in (tmp_path / "out/report.html").read_text()
    # A base that tells them apart as well makes the audit void.
    write(tmp_path, ".npy", "base", shift=1e-3)
    said = audited(*pair(".npy"), *pair(".npy", "base_", "base"), "--audit.direction", "high,low")
    assert said.startswith("This audit is void")


def test_clid_s_files_are_judged_as_clid(tmp_path: Path, audited: Audited) -> None:
    files = {"m": clid(90, 1.0), "n": clid(80, 0.0), "sm": clid(90, 1.0), "sn": clid(90, 0.0)}
    for name, rows in files.items():
        write_scores(rows, tmp_path / f"{name}.txt")
    audited(*pair(".txt"), *pair(".txt", "shadow_", "s"), "--audit.direction", "clid")
    m, n, sm, sn = (read_columns(tmp_path / f"{name}.txt").rows for name in files)
    rule = CLiDThreshold().fit(sm, sn)
    found = report(tmp_path)
    expected = roc_auc_score(np.repeat([1, 0], [90, 80]), np.concatenate([rule(m), rule(n)]))
    assert found["headline"] == "CLiD_th"
    assert found["tuned_on"] == "the shadow model's scores"
    plain = found["scores"]["CLiD_th"]["target"]
    assert plain["auc"]["value"] == pytest.approx(expected, abs=1e-12)
    assert plain["tuned"]["alpha"] == rule.alpha
    # Without the shadow half of the rows is for tuning; a header of CLiD's says the direction.
    for name in "mn":
        write_csv(tmp_path / f"{name}.csv", files[name], ["cond0", "D1", "D2", "D3", "Dnull"])
    audited(*pair())
    for each in report(tmp_path)["scores"].values():
        assert (each["target"]["n_members"], each["target"]["n_holdouts"]) == (45, 40)
    page = (tmp_path / "out/report.html").read_text()
    assert "picture is flagged, set on a separate half of the rows" in page
    assert "the threshold set on a separate half of the rows" in page


def test_the_wrong_direction_is_told_as_reversed(tmp_path: Path, audited: Audited) -> None:
    write(tmp_path, ".npy")
    said = audited(*pair(".npy"), "--audit.direction", "low,high")
    assert "takes the non-members for members" in said
    assert "audit.direction" in said


def spoilt(folder: Path) -> None:
    """Files with one mistake each beside good ones."""
    write(folder, ".csv")
    write(folder, ".npy")
    good = (folder / "m.csv").read_text().splitlines()
    (folder / "nan.csv").write_text("\n".join([*good[:4], "nan,1", *good[4:]]))
    (folder / "words.csv").write_text("\n".join([*good[:4], "0.5,high", *good[4:]]))
    (folder / "ragged.csv").write_text("\n".join([*good[:4], "0.5", *good[4:]]))
    (folder / "head.csv").write_text("pia,loss\n")
    (folder / "empty.csv").write_text("")
    (folder / "latin.csv").write_bytes(b"pia,loss\n0.5,\xe9\n")
    (folder / "named.csv").write_text("\n".join(["image,pia"] + ["a.png,1"] * 9))
    (folder / "index.csv").write_text(
        "\n".join([",pia", *(f"{i},{x}" for i, x in enumerate(MEMBERS[:, 0]))])
    )
    (folder / "swapped.csv").write_text("\n".join(["loss,pia", *good[1:]]))
    (folder / "constant.csv").write_text("\n".join(["pia,loss", *["0.5,0.25"] * 9]))
    (folder / "as_constant.csv").write_text(
        "\n".join(["pia,loss", *(f"{x / 7},0.25" for x in range(9))])
    )
    (folder / "copy.csv").write_text("\n".join(good))
    np.save(folder / "pickled.npy", np.array([{"a": 1}, {}], dtype=object), allow_pickle=True)
    np.save(folder / "cube.npy", np.zeros((2, 2, 2)))
    np.save(folder / "short.npy", MEMBERS[:5])
    np.save(folder / "one.npy", MEMBERS[:, 0])
    np.save(folder / "others.npy", OTHERS + 1)
    (folder / "cut.npy").write_bytes((folder / "m.npy").read_bytes()[:300])
    (folder / "a.pt").write_bytes(b"PK")
    (folder / "bad.safetensors").write_bytes(b"no")
    (folder / "bad.parquet").write_bytes(b"no")
    (folder / "zero.csv").write_text("0\n0.5\n1.5\n")
    save_file({"a": torch.zeros(3), "b": torch.zeros(4)}, folder / "unequal.safetensors")


HIGH = ["--audit.direction", "high"]
BASE = ["--audit.base_nonmember_scores", "{f}/others.npy"]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["nan.csv"], ["audit.member_scores", "nan.csv, row 5", "finite", "nan in 'pia'"]),
        (["words.csv"], ["row 5", "got 'high' in 'loss'", "audit.score_columns"]),
        (["ragged.csv"], ["row 5: 1 columns, but 2"]),
        (["head.csv"], ["no rows of scores"]),
        (["empty.csv"], ["no rows of scores"]),
        (["latin.csv"], ["no text in UTF-8"]),
        (["named.csv"], ["got 'a.png' in 'image'", "audit.score_columns"]),
        (["index.csv"], ["'column 1'", "counts the rows", "audit.score_columns"]),
        (["swapped.csv"], ["loss, pia", "same order"]),
        (["n.csv"], ["are the same file"]),
        (["n.npy"], ["audit.member_scores and audit.nonmember_scores hold the same rows"]),
        (
            ["copy.csv", "--audit.base_member_scores", "{f}/m.csv", *BASE],
            ["audit.member_scores and audit.base_member_scores hold the same rows"],
        ),
        (
            ["constant.csv", "--audit.nonmember_scores", "{f}/as_constant.csv"],
            ["'loss' is 0.25 in each row", "audit.score_columns"],
        ),
        (["zero.csv"], ["the first row is 0", "pandas"]),
        (["none.csv"], ["audit.member_scores: No score file"]),
        (["pickled.npy"], ["pickles can run programs"]),
        (["cube.npy"], ["shape (2, 2, 2)"]),
        (["cut.npy"], ["no array of numbers"]),
        (["one.npy"], ["has 2 columns and audit.member_scores 1", "audit.score_columns"]),
        (["a.pt"], ["allowed: .txt, .tsv, .csv, .npy, .safetensors, .parquet"]),
        (["bad.safetensors"], ["no safetensors file"]),
        (["unequal.safetensors"], ["different length ('a' 3, 'b' 4 rows)"]),
        (["m.csv", "--audit.score_columns", "pie"], ["no column 'pie'; it has pia, loss"]),
        (["m.csv", "--audit.direction", "hihg"], ["audit.direction is 'hihg'", "high or low"]),
        (["m.csv", "--audit.direction", "high,low,high"], ["3 words for 2 columns (pia, loss)"]),
        (["m.csv", "--audit.direction", "pia=high,los=low"], ["'los'", "each of pia, loss"]),
        (["m.csv", "--audit.direction", "clid,high"], ["must stand alone"]),
        (["m.csv", "--audit.headline", "Loss"], ["audit.headline is 'Loss'", "pia, loss"]),
        (["m.csv", "--audit.ladder", "true"], ["audit.ladder asks for measuring"]),
        (["m.csv", "--audit.members", "{f}"], ["audit.members asks for measuring"]),
        (["m.csv", "--audit.base_member_scores", "{f}/m.npy"], ["audit.base_nonmember_scores is"]),
        (
            ["m.csv", "--audit.base_member_scores", "{f}/short.npy", *BASE],
            ["audit.base_member_scores has 5 rows and audit.member_scores 120"],
        ),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, audited: Audited, options: list[str], parts: list[str]
) -> None:
    spoilt(tmp_path)
    direction = [] if "--audit.direction" in options else HIGH
    files = ["--audit.member_scores", f"{{f}}/{options[0]}"]
    files += ["--audit.nonmember_scores", "{f}/n.csv"]
    error = audited(*files, *direction, *options[1:], fails=True)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (pair(), ["audit.direction is needed", "pia, loss", "--audit.direction low"]),
        (pair()[:2], ["audit.member_scores is given and audit.nonmember_scores is not"]),
        (pair(".csv", "base_"), ["audit.base_member_scores needs the audited scores too"]),
        (HIGH, ["audit.direction is about files of scores"]),
        ([], ["audit.target names no model", "audit.member_scores"]),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, audited: Audited, options: list[str], parts: list[str]
) -> None:
    write(tmp_path, ".csv")
    error = audited(*options, fails=True)
    assert error.startswith("error: ")
    for part in parts:
        assert part in error


def test_words_in_parquet_are_named(tmp_path: Path, audited: Audited) -> None:
    write(tmp_path, ".parquet")
    save_parquet(tmp_path / "m.parquet", MEMBERS, file=["a.png"] * len(MEMBERS))
    error = audited(*pair(".parquet"), "--audit.direction", "high,low", fails=True)
    assert "column 'file' holds string, not numbers" in error
    (tmp_path / "n.parquet").write_bytes(b"PAR1")
    assert "no Parquet file" in audited(
        *pair(".parquet"), *HIGH, "--audit.score_columns", "pia", fails=True
    )


def test_intervals_of_very_many_scores_are_those_of_the_bootstrap() -> None:
    """Counts in the place of rows, for a single score and for the difference of two models."""

    def given(members: np.ndarray, holdouts: np.ndarray) -> Rule:
        return first_column

    rng = np.random.default_rng(1)
    some = [rng.normal(shift, 1, 4000) for shift in (0.3, 0.0, 0.25, 0.0)]
    shadow, target = (Features(*(x[:, None] for x in two)) for two in (some[:2], some[2:]))
    rows = _bootstrap(None, first_column, shadow, target, FPRS[:2], 1000, 1)
    points = _numbers(first_column, shadow, target, FPRS[:2])
    counts = binned.bootstrap(some, points, FPRS[:2], 1000, 2)
    spread = rows.std(0)
    np.testing.assert_allclose(counts.std(0), spread, rtol=0.15)
    for end in (0.025, 0.975):
        apart = np.quantile(counts, end, axis=0) - np.quantile(rows, end, axis=0)
        assert (np.abs(apart) < 0.35 * spread).all()
    many = Features(rng.normal(0.1, 1, (500_000, 1)), rng.normal(0, 1, (500_000, 1)))
    found = evaluate(given, many, many, resamples=200)
    assert found.auc.low < found.auc.value < found.auc.high < found.auc.low + 0.004


def test_the_paired_error_is_the_bootstrap_s() -> None:
    rng = np.random.default_rng(2)
    base = Features(rng.normal(0.1, 1, 900), rng.normal(0, 1, 700))
    target = Features(base.members + rng.normal(0.3, 0.5, 900), base.holdouts)
    for place, values in enumerate(placements(*target)):
        other = target[1 - place]
        below = (target[place][:, None] > other) + (target[place][:, None] == other) / 2
        np.testing.assert_allclose(values, below.mean(1) if place == 0 else 1 - below.mean(1))
    gain = _gain(base, target, 1000, 0)
    assert gain.high - gain.low == pytest.approx(3.92 * paired_error(target, base), rel=0.1)
