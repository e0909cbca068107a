"""Where audits of several seeds tell members: pytest tests/audit/test_table_path.py"""

import json
from pathlib import Path

import numpy as np

from shortcut_lightning.audit.pooled import Audited, Collection
from shortcut_lightning.audit.table_path import curves_table, keep_levels, levels_of, peak_table
from shortcut_lightning.membership.roc import auc

SHARES = {0: 0.03, 300: 0.45, 900: 0.89}


def audited(seed: int, gaps: tuple[float, float, float]) -> tuple[Audited, dict[str, np.ndarray]]:
    """An audit of eighty pictures, and minus their losses at three levels: members lie above the
    others by the gaps."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.repeat([True, False], 40))
    values = rng.normal(size=(80, 3)) + member[:, None] * np.array(gaps)
    levels = [
        {"timestep": step, "share": share, "auc": auc(v[member], v[~member])}
        for (step, share), v in zip(SHARES.items(), values.T, strict=True)
    ]
    report = {
        "path": {"levels": levels, "predicted_share": 0.99},
        "scores": {},
        "weights": {"target": f"model{seed}"},
    }
    keys = [f"{number:016x}" for number in range(80)]
    return Audited(f"path20-{seed}", report, keys, member, {}), dict(zip(keys, values, strict=True))


def write_features(folder: Path, audit: Audited, rows: dict[str, np.ndarray]) -> None:
    """As an audit leaves them, with a row that was cut off."""
    lines = [
        "\t".join([f"{key}-caption", f"{row.mean():.9g}", *(f"{value:.9g}" for value in row)])
        for key, row in rows.items()
    ]
    folder.mkdir(exist_ok=True)
    file = folder / f"LossProfile-{audit.report['weights']['target']}-0123456789.tsv"
    file.write_text("\n".join(["0000000000000000-caption\t0.1\tcut", *lines, ""]))


def collection(folder: Path, gaps: tuple[float, float, float]) -> Collection:
    """Three seeds."""
    found = []
    for seed in range(3):
        audit, rows = audited(seed, gaps)
        write_features(folder, audit, rows)
        levels = levels_of(audit, folder / audit.name, folder)
        assert levels
        found.append(levels)
    return Collection(found, resamples=300)


def test_kept_levels_are_the_measured_ones(tmp_path: Path) -> None:
    audit, rows = audited(0, (0, 1, 0))
    assert levels_of(audit, tmp_path, tmp_path) is None
    write_features(tmp_path, audit, rows)
    measured = levels_of(audit, tmp_path, tmp_path)
    assert measured
    assert [*measured.scores] == ["0", "300", "900"]
    own = [v[audit.member] for v in measured.scores.values()]
    others = [v[~audit.member] for v in measured.scores.values()]
    told = [level["auc"] for level in audit.report["path"]["levels"]]
    assert [auc(*pair) for pair in zip(own, others, strict=True)] == told
    keep_levels(measured, tmp_path / "levels.csv")
    kept = levels_of(audit, tmp_path, tmp_path / "elsewhere")
    assert kept
    for step, values in measured.scores.items():
        np.testing.assert_allclose(kept.scores[step], values, rtol=1e-5)
    json.dumps(kept.report)  # plain data, as before


def test_losses_of_several_settings_are_not_told_apart(tmp_path: Path) -> None:
    audit, rows = audited(0, (0, 1, 0))
    write_features(tmp_path, audit, rows)
    (file,) = tmp_path.glob("*.tsv")
    file.with_name(file.name.replace("0123456789", "9876543210")).write_text(file.read_text())
    assert levels_of(audit, tmp_path, tmp_path) is None


def test_a_peak_in_the_middle_is_told_from_the_ends_and_from_the_closed_form(
    tmp_path: Path,
) -> None:
    found = collection(tmp_path, (0.2, 2.0, 0.2))
    inside, above, place, other_way = peak_table(found).splitlines()[2:]
    assert "lies between the ends asked, 20 epochs |" in inside
    assert "| holds | s = 0.03 +0." in inside
    assert "| undecided | +0.00 (+0.00 to +0.00) |" in above  # it is the middle
    assert "place (s = 0.99; asked at 0.89)" in place
    assert "| does not hold | -0." in place
    assert "the other way (s = 0.01; asked at 0.03)" in other_way
    assert "| does not hold | -0." in other_way
    assert curves_table(found).splitlines()[2].endswith("| 0.45 | 0.45 | 0.99 |")


def test_a_peak_where_the_closed_form_puts_it_is_seen(tmp_path: Path) -> None:
    found = collection(tmp_path, (0.0, 0.5, 2.5))
    inside, above, place, _ = peak_table(found).splitlines()[2:]
    assert "| undecided | s = 0.03 +0." in inside
    assert "| holds | +0." in above
    assert "| holds | +0." in place


def test_one_seed_has_no_others_to_choose_on(tmp_path: Path) -> None:
    audit, rows = audited(0, (0, 1, 0))
    write_features(tmp_path, audit, rows)
    levels = levels_of(audit, tmp_path, tmp_path)
    assert levels
    assert peak_table(Collection([levels], resamples=100)) == ""
    assert "| path20-0 |" in curves_table(Collection([levels], resamples=100))
