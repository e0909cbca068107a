"""Pictures, fit and card of the detector of protections: python -m pytest tests/screening"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shortcut_lightning.attacks import PhotoGuardEncoder
from shortcut_lightning.concepts.noise_statistics import statistics
from shortcut_lightning.concepts.protection import RATES
from shortcut_lightning.screening import card, fit, pictures, table
from shortcut_lightning.screening.pictures import Made, attack_of, drawn, originals
from shortcut_lightning.screening.table import Row, Table
from shortcut_lightning.screening.variants import INNOCENT, PUBLISHED, published, uniform_noise


@pytest.mark.parametrize("attack", pictures.ATTACKS)
def test_every_attack_has_a_preset_and_takes_a_radius(attack: str) -> None:
    assert attack_of(attack, 4).epsilon == 4
    assert any(attack in group for group in fit.GROUPS.values())


def test_the_plan_names_everything_once() -> None:
    names = [made.name for made in pictures.plan(2, photographs=True)]
    assert len(names) == len(set(names))
    small = list(pictures.plan(1, photographs=True, elsewhere=False))
    assert {(made.source, made.side, made.family) for made in small} == {("world", 64, "pocket")}
    made = list(pictures.plan(1, photographs=False))
    assert {each.source for each in made} == {"world", "sample"}
    assert {each.epsilon for each in made if each.attack == "aspl"} == set(pictures.RADII)


def test_attacks_share_no_person_and_radii_share_all() -> None:
    made = Made(0, "world", 64, "pocket", "advdm", 8)
    first = originals(made, False, "")
    assert torch.equal(first, originals(made._replace(epsilon=16), False, ""))
    others = [made._replace(attack="mist"), made._replace(round=1), made._replace(family="x")]
    for other in others:
        assert not any(torch.equal(a, b) for a in first for b in originals(other, False, ""))


def test_what_is_made_is_kept_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [Made(0, "world", 64, "pocket", "photoguard_encoder", radius) for radius in (4, 16)]
    monkeypatch.setattr(pictures, "plan", lambda rounds, photographs, elsewhere: iter(made))
    monkeypatch.setattr(pictures, "generate", lambda folder: None)
    calls = []

    def short(preset: str, epsilon: int) -> PhotoGuardEncoder:
        calls.append(epsilon)
        return PhotoGuardEncoder(epsilon=epsilon, steps=2, step_size=4)

    monkeypatch.setattr(pictures, "attack_of", short)
    for part in ("1/2", "2/2", "1/1"):
        pictures.make(str(tmp_path), shard=part)
    assert calls == [4, 16]
    levels = load_file(tmp_path / made[1].name)
    assert levels["clean"].shape == levels["protected"].shape == (4, 3, 64, 64)
    assert 0 < (levels["clean"].int() - levels["protected"].int()).abs().max() <= 16
    with pytest.raises(ValueError, match=r"shard is '3/2'"):
        pictures.make(str(tmp_path), shard="3/2")


def test_edits_and_publication_leave_pictures() -> None:
    image, chance = drawn(5, 1, 64)[0], np.random.default_rng(0)
    for edit in INNOCENT.values():
        edited = edit(image, chance)
        assert edited.shape == image.shape
        assert 0 <= edited.min() < edited.max() <= 1
        assert not torch.equal(edited, image)
    assert {tuple(change(image).shape[-2:]) for change in PUBLISHED.values()} == {
        (32, 32),
        (48, 48),
        (64, 64),
        (96, 96),
    }
    assert min(published(image, chance).shape[-2:]) >= 32
    noise = uniform_noise(image, chance, 8, sign=True) - image
    assert (noise * 255).abs().max() == pytest.approx(8, abs=0.01)


def test_a_table_keeps_training_and_card_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PEOPLE", "_CUTS"):
        monkeypatch.setattr(table, name, {64: 2})
    monkeypatch.setattr(table, "_GRAINY", 1)
    with pytest.raises(ValueError, match="No protected pictures"):
        table.build(str(tmp_path))
    clean = (drawn(7, 2, 64) * 255).to(torch.uint8)
    save_file({"training": clean, "card": clean.clone()}, tmp_path / pictures.GENERATED)
    about = '{"round": 0, "source": "world", "side": 64, "family": "pocket", "attack": "advdm", '
    save_file(
        {"clean": clean, "protected": clean.clone()},
        tmp_path / "0-world-64-pocket-advdm-16.safetensors",
        metadata={"made": about + '"epsilon": 16, "seconds": 1}'},
    )
    built = table.build(str(tmp_path))
    assert len(built.rows) == len(built.statistics)
    of_card = [row for row in built.rows if row.part == "card" and row.kind == "protected"]
    assert {row.publication for row in of_card} == set(PUBLISHED)
    people = {
        part: {r.people for r in built.rows if r.part == part and r.kind == "clean"}
        for part in ("training", "card")
    }
    assert not people["training"] & people["card"]
    left = fit.left_out(built, ["advdm"])
    assert {row.attack for row in left.training.rows} == {""}
    assert not {row.people for row in left.training.rows} & {r.people for r in left.tested.rows}
    assert table.build(str(tmp_path)).rows == built.rows


@pytest.fixture(scope="module")
def made() -> Table:
    """Clean people, and people with noise under the names of two attacks."""
    rows, images = [], []
    chance = np.random.default_rng(0)
    for part, seed in (("training", 11), ("card", 12)):
        for index, image in enumerate(drawn(seed, 40, 64)):
            clean = Row(part, f"{part} {index}", "world", 64, "clean", "as made")
            rows.append(clean)
            images.append(image)
            for attack in ("advdm", "sds"):
                rows.append(
                    clean._replace(
                        people=f"{part} {attack} {index}",
                        kind="protected",
                        attack=attack,
                        family="pocket",
                        epsilon=8,
                    )
                )
                images.append(uniform_noise(image, chance, 8, sign=True))
    for index, image in enumerate(drawn(13, 10, 64)):
        for kind, source in (("clean", "photographs"), ("sharpened", "world")):
            rows.append(Row("card", f"more {index}", source, 64, kind, "as made"))
            images.append(image)
    return Table(rows, statistics(torch.stack(images)).numpy())


def test_training_separates_and_thresholds_keep_their_promise(made: Table) -> None:
    training = made.where([row.part == "training" for row in made.rows])
    network = fit.train(training)
    scores = fit.score(network, made.statistics)
    protected = np.array([row.kind == "protected" for row in made.rows])
    assert np.median(scores[protected]) > 0 > np.median(scores[~protected])
    limits = network.thresholds.tolist()
    assert limits == sorted(limits, reverse=True)
    again = fit.train(training)
    assert torch.equal(again.thresholds, network.thresholds)


def test_the_card_is_written_and_read(made: Table, tmp_path: Path) -> None:
    network = fit.train(made.where([row.part == "training" for row in made.rows]))
    card.write(network, made, tmp_path, tmp_path / "card.json")
    read = card.Card(tmp_path)
    by_attack = read.by("attack", left_out="attack")
    assert {row["attack"] for row in by_attack} == {"advdm", "sds"}
    for row in by_attack:
        assert row["auc"] > 0.95  # the same noise under the other name
        assert row["found_1"] <= row["found_5"] <= 1
        assert row["pictures"] == 40
    (clean,) = read.mistakes("kind", training="all", kind="clean", source="world")
    assert clean["pictures"] == 40
    assert clean["alarms_1"] <= clean["alarms_5"] < 0.5
    assert sum(row.pictures for row in read.bins) == 80 + 40 + 10
    rates = card.error_rates(read.found, read.alarms)
    assert [float(rate) for rate in rates] == list(RATES)
    assert rates["0.05"]["attacks"] == 2
