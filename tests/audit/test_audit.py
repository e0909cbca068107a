"""A whole audit on small random models: pytest tests/audit/test_audit.py"""

import csv
import json
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import asked, is_readable, needs_browser
from flow_models import write_small_flux
from markupsafe import escape
from torch.nn import functional

from shortcut_lightning import backbones, draws
from shortcut_lightning.audit.audit import Audit
from shortcut_lightning.audit.blind import Blind
from shortcut_lightning.audit.controls import Gate, other_captions
from shortcut_lightning.audit.controls import gate as gate_of
from shortcut_lightning.audit.evaluator import Features, evaluate
from shortcut_lightning.audit.loading import AuditedModel, exported_model
from shortcut_lightning.audit.page import write_page
from shortcut_lightning.audit.settings import Asking, Controls, Statistics
from shortcut_lightning.audit.splits import split
from shortcut_lightning.audit.verdict import verdict
from shortcut_lightning.audit.words import WORDS
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership import (
    CLiD,
    CLiDThreshold,
    ImportantWords,
    Loss,
    MonteCarlo,
    NullOnly,
)
from shortcut_lightning.membership.ledger import Ledger
from shortcut_lightning.membership.pictures import Picture, picture, read_pictures
from shortcut_lightning.membership.roc import Interval, auc
from shortcut_lightning.pocket import world

SEES_NOTHING = Blind("captions", 0.52, 0.05)
MORE, ALIKE = Interval(0.3, 0.2, 0.4), Interval(0.03, -0.05, 0.1)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of 12 images each, drawn at random from one collection."""
    found = [world.draw(9, i) for i in range(48)]
    album = [
        picture(f"{i:02d}.png", d.caption, torch.from_numpy(d.image).permute(2, 0, 1) / 255, 32)
        for i, d in enumerate(found)
    ]
    folder = tmp_path_factory.mktemp("sets")
    split(album, 12, 12, seed=1).write(folder)
    return folder


@pytest.fixture(scope="module")
def models(epsilon_model: Backbone, sets: Path) -> dict[str, Backbone]:
    """The random model as base; target and shadow have learned their members by heart."""
    return {
        "target": learned(epsilon_model, sets / "members"),
        "shadow": learned(epsilon_model, sets / "shadow_members"),
        "base": epsilon_model,
    }


def learned(base: Backbone, folder: Path) -> Backbone:
    """A copy that has seen the members' own noise around t = 450 (the smallest over-training that
    every score can see)."""
    model = deepcopy(base)
    pictures, _ = read_pictures(folder, "members", 32)
    images = torch.stack([each.pixels() for each in pictures])
    keys = torch.tensor([each.key for each in pictures])
    with torch.no_grad():
        latents = model.encode(images).mean
        text = model.embed([each.caption for each in pictures])
    noise = draws.normal(latents.shape[1:], 0, "membership noise t450 #0", keys)
    steps = torch.full((len(images),), 450)
    noisy = model.add_noise(latents, noise, steps)
    optimizer = torch.optim.Adam(model.denoiser.parameters(), lr=3e-3)
    for _ in range(25):
        loss = functional.mse_loss(model.predict(noisy, steps, text), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def an_audit(sets: Path, **changes: object) -> Audit:
    settings: dict[str, object] = {
        "target": AuditedModel("unused"),
        "members": str(sets / "members"),
        "nonmembers": str(sets / "nonmembers"),
        "shadow": AuditedModel("unused"),
        "shadow_members": str(sets / "shadow_members"),
        "shadow_nonmembers": str(sets / "shadow_nonmembers"),
        "scores": {
            "CLiD_th": CLiDThreshold(NullOnly(), n_t=1),
            "Monte-Carlo": MonteCarlo(n_t=1),
        },
        "statistics": Statistics(resamples=100),
        "dataset": False,
        **changes,
    }
    return Audit(**settings)  # type: ignore[arg-type]


def test_an_audit_finds_what_was_learned_and_writes_it_down(
    sets: Path, models: dict[str, Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = an_audit(sets, dataset=True, statistics=Statistics(permutations=19))
    monkeypatch.setattr(audit, "_load", lambda: models)
    result = audit.run(tmp_path, "abc")
    head = result.judged["CLiD_th"]
    assert head.plain.auc.low > 0.6
    assert head.base is not None
    assert head.base.passed
    assert head.calibrated is not None
    assert head.calibrated.auc.value > 0.6
    assert result.verdict.kind == "told apart"
    assert "12 given members" in result.verdict.text
    assert "does not settle the case of any single one" in result.verdict.text

    report = json.loads((tmp_path / "report.json").read_text())
    scores = report["scores"]["CLiD_th"]
    assert scores["queries"] == 2
    assert scores["target"]["auc"]["value"] == head.plain.auc.value
    assert scores["target"]["p_value"] == head.plain.p_value < 0.001
    assert scores["base"]["gain"]["low"] == head.base.gain.low > 0
    # 1 % of 12 hold-outs is nobody.
    assert scores["target"]["rates"][1]["support"] == "refused"
    assert scores["target"]["rates"][1]["tpr_member"]["value"] is None
    assert {each["name"] for each in report["blind"]} == {
        "captions", "image statistics", "embeddings (pocket-clip)", "file metadata"
    }  # fmt: skip
    assert [each["name"] for each in report["captions"]] == ["fixed", "shuffled", "swapped"]
    found = report["dataset"]["CDI with CLiD"]
    assert 0 < found["p_value"] <= 1
    assert 0 < found["p_base"] <= 1
    assert found["direction"] > report["dataset"]["CDI"]["direction"]  # only CLiD sees t = 450

    assert report["weights"].keys() == {"target", "shadow", "base"}
    assert {"torch", "diffusers"} <= report["versions"].keys()
    assert report["code"] == "abc"
    levels = report["path"]["levels"]
    assert [level["timestep"] for level in levels] == [*range(0, 1000, 100)]
    assert sorted(level["share"] for level in levels) == [level["share"] for level in levels]
    assert all(0 <= level["auc"] <= 1 and 0 <= level["base"] <= 1 for level in levels)
    assert 0 < report["path"]["predicted_share"] < 1

    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert [row["set"] for row in rows].count("member") == 12
    flagged = [int(row["flagged"]) for row in rows if row["set"] == "member"]
    assert np.mean(flagged) == pytest.approx(head.plain.realised_tpr.value)
    assert float(rows[0]["Monte-Carlo"]) == pytest.approx(
        result.judged["Monte-Carlo"].scores.members[0], rel=1e-4
    )
    page = (tmp_path / "report.html").read_text()
    assert result.verdict.text.split(":")[0] in page
    assert "<svg" in page
    assert "Where on the path members are told" in page
    assert page.count("data:image/png") == 12
    assert 'src="http' not in page
    explained = " ".join(word for word, _, _ in WORDS)
    heads = re.findall(r"<th[^>]*>(.*?)</th>", page)
    assert len(heads) > 20
    plain = {"control", "meaning", "word", "features", "ladder", "hold-outs", ""}
    for head in set(heads) - plain:
        assert all(part in explained for part in re.split(r", (?=AUC)", head)), head
    assert "does not tell them apart" in page


@needs_browser
@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_page_in_a_browser(
    sets: Path, models: dict[str, Backbone], tmp_path: Path, dark: bool
) -> None:
    evil = "<script>document.title = 'broken'</script>'\"& " + "x" * 120
    audit = an_audit(
        sets,
        dataset=True,
        statistics=Statistics(permutations=19),
        controls=Controls(fixed_caption=evil),
    )
    result = audit.judge(models)
    members = [replace(each, name=evil) for each in result.members]
    write_page(replace(result, members=members, warnings=[evil]), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    is_readable(page, tmp_path, dark)
    script = "return [document.title, document.body.textContent, document.scripts.length];"
    title, text, scripts = asked(page, script, tmp_path)
    assert title.startswith("Membership audit")
    assert evil in text
    assert scripts == 0


def test_a_killed_audit_asks_no_image_twice(
    sets: Path, models: dict[str, Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    measure = CLiD.measure

    def counted(self, probe):  # type: ignore[no-untyped-def]
        asked.append(len(probe))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return measure(self, probe)

    monkeypatch.setattr(CLiD, "measure", counted)
    settings = {
        "compute": Asking(images_per_chunk=5),
        "controls": Controls(captions=False, blind=False),
    }
    with pytest.raises(KeyboardInterrupt):
        an_audit(sets, **settings).judge(models, tmp_path)
    ledgers = sorted((tmp_path / "features").glob("CLiD-*.tsv"))
    done = [len(each.read_text().splitlines()) for each in ledgers if each.exists()]
    assert sorted(done) == [5, 5]  # two models for the first chunk; the second is begun again
    ledger = ledgers[0]
    with ledger.open("a") as file:
        file.write("0123-cut off in the mid")
    first_part = list(asked)
    resumed = an_audit(sets, **settings).judge(models, tmp_path)
    rows_in_all = 2 * 24 * 2  # target and shadow sets, each on its model and on the base
    assert sum(first_part[:3]) + sum(asked[len(first_part) :]) <= rows_in_all + 5 + 5
    whole = an_audit(sets, **settings).judge(models)
    for name in whole.judged:
        np.testing.assert_array_equal(
            np.concatenate(resumed.judged[name].scores),
            np.concatenate(whole.judged[name].scores),
        )
    asked.clear()
    an_audit(sets, **settings).judge(models, tmp_path)
    assert not asked


def test_a_ledger_passes_over_damaged_rows_and_rewrites_nothing(tmp_path: Path) -> None:
    features = np.array([[0.123, 1.5], [0.25, 2.5]])
    ledger = Ledger(tmp_path, "Loss", "{}")
    ledger.append(["a", "b"], features)
    assert ledger.path is not None
    before = ledger.path.read_bytes() + b"c\t0.1\t0.2"  # of 0.234: it could pass for a whole row
    ledger.path.write_bytes(before)
    again = Ledger(tmp_path, "Loss", "{}")
    assert list(again.rows) == ["a", "b"]
    assert ledger.path.read_bytes() == before  # another process may be in the middle of that row
    again.append(["d"], features[:1])
    with ledger.path.open("a") as file:
        file.write("e\t0.5\nf\t0.5\t0.5\t0.5\ng\tx\t0.5\n")
    last = Ledger(tmp_path, "Loss", "{}")
    assert {name: row.tolist() for name, row in last.rows.items()} == {
        "a": [0.123, 1.5], "b": [0.25, 2.5], "d": [0.123, 1.5]
    }  # fmt: skip
    assert list(Ledger(None, "Loss", "{}").rows) == []


def test_a_ladder_asks_again_only_about_the_undecided(
    sets: Path, models: dict[str, Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rungs = [CLiDThreshold(NullOnly(), n_t=1), CLiDThreshold(NullOnly())]
    monkeypatch.setattr("shortcut_lightning.audit.ladder.default_rungs", lambda: rungs)
    audit = an_audit(
        sets,
        ladder=True,
        statistics=Statistics(ladder_error=0.3),
        controls=Controls(blind=False, captions=False),
    )
    monkeypatch.setattr(audit, "_load", lambda: models)
    found = audit.run(tmp_path).ladder
    assert found is not None
    assert sum(found.per_rung) == 24
    assert found.queries == pytest.approx((2 * 24 + 6 * sum(found.per_rung[1:])) / 24)
    assert 2 <= found.queries < 8
    assert found.asr > 0.6
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ladder"]["queries"] == found.queries
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert np.mean([int(row["ladder queries"]) for row in rows]) == pytest.approx(found.queries)
    flagged = [int(row["ladder flagged"]) for row in rows if row["set"] == "non-member"]
    assert np.mean(flagged) == found.realised_fpr.value
    assert "only undecided images are asked" in (tmp_path / "report.html").read_text()


def test_without_a_shadow_half_is_set_aside(
    sets: Path, models: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Six images of each set are just enough for the blind baselines; as if they were not:
    monkeypatch.setattr("shortcut_lightning.audit.audit.blind_baselines", lambda *_: [])
    audit = an_audit(
        sets, shadow=AuditedModel(), shadow_members="", shadow_nonmembers="",
        controls=Controls(captions=False),
    )  # fmt: skip
    result = audit.judge({"target": models["target"]})
    assert len(result.members) == len(result.holdouts) == 6
    assert result.judged["CLiD_th"].base is None
    assert any("No base model" in each for each in result.warnings)
    assert any("half of the images" in each for each in result.warnings)
    assert any("need 5 images of each set, and 6 members" in each for each in result.warnings)


def test_what_a_distilled_model_cannot_do_is_on_the_page(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(write_small_flux(tmp_path / "flux"))
    flux = backbones.load(folder).requires_grad_(False).eval()
    audit = an_audit(
        sets, shadow=AuditedModel(), shadow_members="", shadow_nonmembers="",
        controls=Controls(blind=False, captions=False),
    )  # fmt: skip
    monkeypatch.setattr(audit, "_load", lambda: {"target": flux})
    audit.run(tmp_path / "audit")
    (remark,) = flux.remarks
    assert "The model is distilled to guidance" in remark
    report = json.loads((tmp_path / "audit" / "report.json").read_text())
    assert remark in report["warnings"]
    assert str(escape(remark)) in (tmp_path / "audit" / "report.html").read_text()


def test_captions_change_places() -> None:
    def those(words: str) -> list[Picture]:
        return [Picture(w, w, i, torch.zeros(3, 8, 8), 8) for i, w in enumerate(words)]

    changed = other_captions(those("abcd"), those("xyz"), "one", 0)
    captions = {
        name: [[each.caption for each in part] for part in parts] for name, parts in changed.items()
    }
    assert captions["fixed"] == [["one"] * 4, ["one"] * 3]
    assert sorted(captions["shuffled"][0]) == list("abcd")
    assert all(a != b for a, b in zip(captions["shuffled"][0], "abcd", strict=True))
    assert set(captions["swapped"][0]) == set("xyz")
    assert set(captions["swapped"][1]) < set("abcd")
    assert other_captions(those("aa"), those("a"), "one", 0) == {}


@pytest.mark.parametrize(
    ("shift", "gate", "blind", "kind"),
    [
        (1.5, Gate(0.52, 0.05, MORE), [SEES_NOTHING], "told apart"),
        (1.5, Gate(0.52, 0.05, MORE), [], "told apart, unchecked"),
        (1.5, None, [SEES_NOTHING], "told apart, unchecked"),
        (1.5, Gate(0.62, 0.05, ALIKE), [SEES_NOTHING], "told apart on the base as well"),
        (1.5, Gate(0.90, 0.05, MORE), [SEES_NOTHING], "void"),
        (1.5, Gate(0.52, 0.05, MORE), [Blind("captions", 0.9, 0.05)], "void"),
        (1.5, Gate(0.52, 0.05, MORE), [Blind("captions", 0.0, 0.084)], "told apart"),  # matched
        (0.0, Gate(0.52, 0.05, ALIKE), [SEES_NOTHING], "nothing found"),
        (-1.5, Gate(0.52, 0.05, ALIKE), [SEES_NOTHING], "reversed"),
    ],
)
def test_the_verdict_says_what_the_numbers_allow(
    shift: float, gate: Gate | None, blind: list[Blind], kind: str
) -> None:
    rng = np.random.default_rng(1)
    target = Features(rng.normal(shift, 1, (60, 1)), rng.normal(0, 1, (60, 1)))
    found = evaluate(lambda *_: lambda f: f[:, 0], target, target, resamples=100)
    said = verdict("Loss", found, gate, blind, "the shadow model")
    assert said.kind == kind
    if kind == "nothing found":
        assert "does not show that the images were not used" in said.text
        assert "AUC of 0.65 or more" in said.text
    if kind == "reversed":
        assert "opposite to what the score assumes" in said.text
        assert "sets were not exchanged" in said.text
    assert ("audit.base" in said.text) == (gate is None)
    assert ("were not run (audit.controls.blind" in said.text) == (not blind)
    if kind == "told apart on the base as well":
        assert "AUC is 0.620" in said.text
        assert "may lie in the pictures" in said.text


def test_a_shift_that_the_base_sees_as_well_is_no_membership() -> None:
    """Sixty images of each set with a true AUC of .60 on both models, forty times."""
    kinds = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        target, base = (Features(rng.normal(0.36, 1, 60), rng.normal(0, 1, 60)) for _ in range(2))
        columns = Features(*(each[:, None] for each in target))
        found = evaluate(
            lambda *_: lambda f: f[:, 0], columns, columns, resamples=100, seed=seed, fprs=()
        )
        control = gate_of(base, target, 200, seed)
        kinds.append(verdict("Loss", found, control, [SEES_NOTHING], "the shadow model").kind)
    assert kinds.count("told apart") <= 3
    assert kinds.count("told apart on the base as well") >= 5


def test_the_gain_over_the_base_is_paired() -> None:
    rng = np.random.default_rng(0)
    pictures = Features(rng.normal(1, 1, 60), rng.normal(0, 1, 60))
    same = gate_of(pictures, pictures, 200, 0)
    assert same.gain == (0, 0, 0)  # what both models share cancels
    learned = Features(pictures.members + 1, pictures.holdouts)
    found = gate_of(pictures, learned, 200, 0)
    assert found.auc == same.auc
    assert found.gain.value == pytest.approx(auc(*learned) - auc(*pictures))
    assert 0 < found.gain.low < found.gain.value < found.gain.high < 0.4


def test_two_images_of_each_set_decide_nothing() -> None:
    """Their bootstrap interval is above one half in every sixth audit of nothing."""
    target = Features(np.array([[2.0], [3.0]]), np.array([[0.0], [1.0]]))
    for each in (target, Features(*target[::-1])):
        found = evaluate(lambda *_: lambda f: f[:, 0], target, each, resamples=100)
        assert 0.5 not in (found.auc.low, found.auc.high)
        said = verdict("Loss", found, None, [], "the shadow model")
        assert said.kind == "nothing found"
        assert "would mostly have found" not in said.text  # an AUC above 1
    assert found.p_value == 1.0
    assert found.p_reversed == pytest.approx(1 / 6)


def test_a_single_image_is_only_accused_at_a_known_small_error() -> None:
    rng = np.random.default_rng(2)
    target = Features(rng.normal(6, 1, (1500, 1)), rng.normal(0, 1, (1500, 1)))
    found = evaluate(lambda *_: lambda f: f[:, 0], target, target, resamples=100, fprs=[0.01])
    said = verdict("Loss", found, Gate(0.5, 0.01, MORE), [], "the shadow model")
    assert "A flag on a single image drawn like these is evidence" in said.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": AuditedModel()}, r"audit\.target names no model"),
        ({"shadow_members": ""}, r"comes with both its sets"),
        ({"headline": "CLID"}, r"audit\.headline is 'CLID'; the scores are CLiD_th"),
    ],
)
def test_wrong_settings_are_named(sets: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        an_audit(sets, **changes)


def test_wrong_folders_are_named(sets: Path, models: dict[str, Backbone], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"12 images are in both audit\.members and"):
        an_audit(sets, nonmembers=str(sets / "members")).judge(models)
    with pytest.raises(ValueError, match=r"audit\.nonmembers\), which does not exist"):
        an_audit(sets, nonmembers=str(tmp_path / "none")).judge(models)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"No images.*audit\.members"):
        an_audit(sets, members=str(tmp_path / "empty")).judge(models)


def test_a_run_stands_for_its_newest_exported_model(tmp_path: Path) -> None:
    assert exported_model(tmp_path) == ""
    for number in (2, 10, 9):
        (tmp_path / f"version_{number}/export/model").mkdir(parents=True)
    (tmp_path / "version_11").mkdir()  # still training
    assert exported_model(tmp_path) == str(tmp_path / "version_10/export/model")
    own = tmp_path / "version_9"
    assert exported_model(own) == str(own / "export/model")


def test_a_checkpoint_is_laid_over_its_model(small_sd: Path, tmp_path: Path) -> None:
    base = AuditedModel(str(small_sd)).load()
    name, weight = next(iter(base.denoiser.named_parameters()))
    whole = next(n for n, p in base.named_parameters() if p is weight)
    file = tmp_path / "step=2.ckpt"
    torch.save({"state_dict": {f"backbone.{whole}": weight + 1}}, file)
    changed = AuditedModel(str(small_sd), checkpoint=str(file)).load()
    torch.testing.assert_close(changed.denoiser.get_parameter(name), weight + 1)
    for other in ("backbone.unet.lora_A.weight", f"backbone.{whole}"):
        torch.save({"state_dict": {other: torch.zeros(3, 1)}}, file)
        with pytest.raises(ValueError, match=r"does not fit the model .*takes checkpoints of the"):
            AuditedModel(str(small_sd), checkpoint=str(file)).load()


def test_audits_that_share_features_ask_a_model_once(
    sets: Path, models: dict[str, Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "features": str(tmp_path / "kept"),
        "controls": Controls(captions=False, blind=False),
    }
    first = an_audit(sets, **settings).judge(models)
    monkeypatch.setattr(CLiD, "measure", lambda self, probe: pytest.fail("asked again"))
    # Other names, and the models in exchanged parts: nothing new is asked of any of them.
    scores = {"renamed": CLiDThreshold(NullOnly(), n_t=1)}
    again = an_audit(sets, scores=scores, **settings).judge(models)
    np.testing.assert_allclose(
        again.judged["renamed"].scores.members, first.judged["CLiD_th"].scores.members, rtol=1e-6
    )
    turned = {"target": models["shadow"], "shadow": models["target"], "base": models["base"]}
    exchanged = {
        "members": str(sets / "shadow_members"),
        "nonmembers": str(sets / "shadow_nonmembers"),
        "shadow_members": str(sets / "members"),
        "shadow_nonmembers": str(sets / "nonmembers"),
    }
    an_audit(sets, scores=scores, **settings, **exchanged).judge(turned)
    # Without a base model another one weighs words, which matters to scores that ask for weights.
    two = {"target": models["target"], "shadow": models["shadow"]}
    an_audit(sets, scores=scores, **settings).judge(two)
    assert CLiDThreshold(ImportantWords()).asks_anchor
    assert not CLiDThreshold(NullOnly()).asks_anchor
    assert not Loss().asks_anchor


def test_a_score_that_needs_captions_says_so(models: dict[str, Backbone]) -> None:
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"needs a caption for every image; 1 of 2 have none"):
        CLiDThreshold()(images, ["a photo", ""], models["base"])
    assert Loss()(images, ["a photo", ""], models["base"]).shape == (2, 1)


def test_a_timestep_that_the_model_has_not_is_named(epsilon_model: Backbone) -> None:
    with pytest.raises(ValueError, match="Timestep 1000 was asked for; this model has 0 to 999"):
        MonteCarlo(999, t_spacing=1)(torch.zeros(1, 3, 32, 32), [""], epsilon_model)


@pytest.mark.parametrize("device", ["cuda:7", "toaster"])
def test_a_device_that_is_not_there_is_named(sets: Path, tmp_path: Path, device: str) -> None:
    with pytest.raises(
        ValueError, match=f"audit.compute.device is '{device}', which cannot be used here"
    ):
        an_audit(sets, compute=Asking(device=device)).run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
