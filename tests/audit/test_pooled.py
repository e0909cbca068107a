"""Tables over several audits: pytest tests/audit/test_pooled.py"""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_lightning.audit.pooled import (
    Collection,
    Drawn,
    Statistic,
    area,
    caught,
    gap,
    read_audit,
    success,
)
from shortcut_lightning.audit.table_claims import answer
from shortcut_lightning.audit.tables import AuditTables, keep, make_tables
from shortcut_lightning.membership import roc
from shortcut_lightning.membership.roc import Interval, auc


def write_audit(folder: Path, seed: int, shift: float) -> None:
    """Forty pictures, half of them members by the seed; one good score, one blind one."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.repeat([True, False], 20))
    scores = {"CLiD_th": rng.normal(shift * member, 1)}
    scores |= {name: rng.normal(size=40) for name in ("Loss", "Monte-Carlo", "D null log-ratio")}
    one = {"value": 0.5, "low": 0.4, "high": 0.6}
    better = {"value": 0.8, "low": 0.7, "high": 0.9}
    entry = {
        "queries": 15,
        "target": {"tau": 0.0, "auc": one},
        "target_minus_base": {"auc": better},
        "base": {"auc": 0.5, "error": 0.05, "passed": True},
    }
    report = {
        "headline": "CLiD_th",
        "scores": dict.fromkeys(scores, entry),
        "blind": [{"name": "captions", "auc": 0.51}],
        "captions": [],
        "dataset": {},
        "path": {
            "levels": [
                {"timestep": 100, "share": 0.26, "auc": 0.6, "error": 0.05, "base": 0.5},
                {"timestep": 500, "share": 0.62, "auc": 0.8, "error": 0.05, "base": 0.5},
            ],
            "predicted_share": 0.51,
        },
        "weights": {"base": "base-of-tests"},
        "code": "c0de",
        "versions": {"torch": "2"},
    }
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "key", "set", "caption", "flagged", *scores, "ladder queries"])
        for i in range(40):
            said = "member" if member[i] else "non-member"
            row = [f"{i}.png", f"{i:016x}", said, "a photo, of", 0]
            writer.writerow([*row, *(float(values[i]) for values in scores.values()), 2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        write_audit(tmp_path / f"reports/full40-{seed}", seed, 2.0)
    return tmp_path


def test_means_over_seeds_and_their_intervals(folder: Path) -> None:
    audits = [read_audit(each) for each in sorted(folder.glob("reports/*"))]
    assert "ladder queries" not in audits[0].scores
    found = Collection(audits, resamples=300)
    assert found.seeds("full40") == ["full40-0", "full40-1", "full40-2"]
    assert found.seeds("full4") == []
    assert not found.has("full40", "SecMI")
    mean = found.mean(area, [(1.0, "full40", "CLiD_th")])
    single = [
        auc(each.scores["CLiD_th"][each.member], each.scores["CLiD_th"][~each.member])
        for each in audits
    ]
    assert mean.value == pytest.approx(np.mean(single))
    assert mean.low < mean.value < mean.high < 1
    # Three seeds on the same pictures say more than one.
    one = found.mean(area, [(1.0, "full40-1", "CLiD_th")])
    assert one.high - one.low > mean.high - mean.low
    # What is subtracted from itself leaves nothing, in every draw.
    same = [(1.0, "full40", "CLiD_th"), (-1.0, "full40", "CLiD_th")]
    assert found.mean(area, same) == Interval(0, 0, 0)
    better = found.mean(area, [(1.0, "full40", "CLiD_th"), (-1.0, "full40", "Loss")])
    assert better.low > 0
    assert found.mean(gap, [(1.0, "full40", "CLiD_th")]).value == pytest.approx(2, abs=0.6)
    assert 0.7 < found.mean(success, [(1.0, "full40", "CLiD_th")]).value < 1


@pytest.mark.parametrize(
    ("statistic", "naive"),
    [
        (area, lambda members, holdouts, tau: roc.auc(members, holdouts)),
        (success, roc.accuracy),
        (caught, lambda members, holdouts, tau: roc.tpr_member(members, holdouts, 0.01)),
        (gap, lambda members, holdouts, tau: members.mean() - holdouts.mean()),
    ],
)
def test_many_draws_at_once_are_each_by_itself(statistic: Statistic, naive: Any) -> None:
    rng = np.random.default_rng(0)
    members, holdouts = rng.integers(9, size=30) / 4, rng.integers(8, size=250) / 4  # with ties
    counts = [rng.multinomial(len(each), np.full(len(each), 1 / len(each)), 50)
              for each in (members, holdouts)]  # fmt: skip
    at_once = statistic(Drawn(members, counts[0]), Drawn(holdouts, counts[1]), 1.0)
    alone = [
        naive(np.repeat(members, some), np.repeat(holdouts, others), 1.0)
        for some, others in zip(*counts, strict=True)
    ]
    np.testing.assert_allclose(at_once, alone, rtol=1e-12)


def test_the_tables_hold_what_was_audited(folder: Path) -> None:
    text = make_tables(folder)
    assert (folder / "tables.md").read_text() == text
    assert "over-trained: 40 epochs" in text
    assert "milder" not in text
    assert "| CLiD above every baseline, over-trained: 40 epochs | holds | Loss +0.4" in text
    assert "captions 0.51" in text
    assert "alone, over-trained: 40 epochs | holds | CLiD_th: at least 0.70 against at most" in text


def test_a_defence_is_compared_with_the_same_seeds_without_it(folder: Path) -> None:
    for name in ("full40-0", "full40-1"):
        for setting in ("full20", "u-shaped20"):
            copy = folder / "reports" / name.replace("full40", setting)
            shutil.copytree(folder / "reports" / name, copy)
    told = AuditTables(folder / "reports").claims()
    text = "Levels away from the middle of the path lower the AUC of"
    assert f"| {text} CLiD, 20 epochs | undecided | CLiD_th +0.00 (+0.00 to +0.00) |" in told
    assert f"| {text} every baseline, 20 epochs | undecided | Loss +0.00" in told


def test_an_answer_needs_every_difference() -> None:
    above, around, below = Interval(1, 0.5, 2), Interval(0, -1, 1), Interval(-1, -2, -0.1)
    assert answer([above, above]) == "holds"
    assert answer([above, around]) == "undecided"
    assert answer([above, around, below]) == "does not hold"


def test_unfinished_audits_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No finished audits"):
        make_tables(tmp_path)
    (tmp_path / "reports/a").mkdir(parents=True)
    with pytest.raises(ValueError, match="no finished audit"):
        read_audit(tmp_path / "reports/a")


def test_what_is_kept_gives_the_same_tables(folder: Path, tmp_path: Path) -> None:
    path = folder / "reports/full40-0/report.json"
    report = json.loads(path.read_text()) | {"settings": {"members": f"{folder}/sets/0/members"}}
    path.write_text(json.dumps(report))
    names = keep(folder, tmp_path / "rows")
    assert names == ["full40-0", "full40-1", "full40-2"]
    here, there = AuditTables(tmp_path / "rows"), AuditTables(folder / "reports")
    assert here.settings == there.settings == ["full40"]
    assert here.seeds("full40") == 3
    assert here.methods("full40") == there.methods("full40")
    assert here.claims() == there.claims()
    assert here.controls() == there.controls()
    assert here.arms() == ""
    assert "| full40-0 | 0.60 0.80 | 0.62 | 0.62 | 0.51 |" in here.path()
    assert here.peak() == ""  # no levels of single pictures are there
    assert here.facts() == "code c0de; base base-of-tests; torch 2"
    assert here.area("full40", "CLiD_th") in here.methods("full40")
    assert here.minus_base("full40", "CLiD_th") == "0.80"
    assert here.title("full40") in make_tables(folder)
    kept = json.loads((tmp_path / "rows/full40-0/report.json").read_text())
    assert kept["settings"]["members"] == f"runs/{folder.name}/sets/0/members"  # of no machine


def test_what_scores_take_is_kept_and_told_where_it_was_measured(
    folder: Path, tmp_path: Path
) -> None:
    keep(folder, tmp_path / "without")
    assert "ms an image" not in AuditTables(tmp_path / "without").methods("full40")
    assert "ms an image" not in make_tables(folder)
    (folder / "seconds.json").write_text('{"CLiD_th": 0.0421}')
    keep(folder, tmp_path / "rows")
    told = AuditTables(tmp_path / "rows").methods("full40")
    assert "| score | queries | ms an image | ASR |" in told
    assert "| CLiD_th | 15 | 42 | " in told
    assert told in make_tables(folder)


def test_what_pictures_are_worth_is_kept_and_told(folder: Path, tmp_path: Path) -> None:
    assert AuditTables(folder / "reports", folder).quality() == ""
    told = {"value": 0.25, "low": 0.125, "high": 0.5, "n": 120}
    keys = ("kid_pocket", "fid_pocket", "clip_t", "quality_pocket", "identity")
    run = folder / "quality/full20-0/version_0"
    run.mkdir(parents=True)
    metrics = {f"eval/{key}": told for key in keys}
    (run / "report.json").write_text(json.dumps({"metrics": metrics}))
    keep(folder, tmp_path / "rows")
    table = AuditTables(tmp_path / "rows").quality()
    assert table.splitlines()[0] == "| model | KID | FID | CLIP-T | quality |"
    assert table.splitlines()[2].startswith("| full20-0 | 0.25 (0.12 to 0.50) | 0.25")
    assert table == AuditTables(folder / "reports", folder).quality()
    assert table in make_tables(folder)


def test_earlier_numbers_are_compared_as_they_were_given(folder: Path) -> None:
    found = AuditTables(folder / "reports")
    now = float(found.area("full40", "CLiD_th").split()[0])
    lines = ["setting,score,value", f"full40,CLiD_th,{now:.1f}", "full40,Loss,0.99"]
    (folder / "earlier.csv").write_text("\n".join([*lines, "full20,Loss,0.5", ""]))
    said = found.again("earlier.csv")
    assert said.startswith("1 of 2 AUCs are the same in every digit that was given; the others:")
    assert "| Loss | 0.99 |" in said
