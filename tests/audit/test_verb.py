"""The verb `audit` and its recipes: pytest tests/audit/test_verb.py"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shortcut_lightning.audit.audit import Audit
from shortcut_lightning.cli import main
from shortcut_lightning.cli.audit import audit_parser
from shortcut_lightning.files.images import save_image
from shortcut_lightning.membership import CLiDThreshold, ImportantWords

FOLDER = Path(__file__).parents[2] / "configs" / "audit"
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if "\naudit:" in path.read_text())
CHEAP = """
audit:
  scores:
    CLiD_th:
      class_path: CLiDThreshold
      init_args: {n_t: 1, reducer: NullOnly}
  statistics: {resamples: 100}
  dataset: false
  controls: {captions: false, blind: false}
"""

Audited = Callable[..., tuple[str, str]]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_makes_an_audit(path: Path) -> None:
    reader = audit_parser()
    arguments = ["--config", str(path)]
    if path.parent.name == "tables":  # run.sh says which model and whose pictures
        model = "--audit.target.pretrained_model_name_or_path=pocket"
        arguments += [model, "--audit.members=a", "--audit.nonmembers=b"]
    audit = reader.instantiate(reader.parse_args(arguments)).audit
    assert isinstance(audit, Audit)
    assert audit.headline.startswith("CLiD_th")
    assert any(score.needs_captions for score in audit.scores.values())


def test_the_paper_s_recipe_takes_words_by_importance() -> None:
    reader = audit_parser()
    arguments = ["--config", str(FOLDER / "clid_paper.yaml"), "--audit.seed", "3"]
    audit = reader.instantiate(reader.parse_args(arguments)).audit
    score = audit.scores["CLiD_th"]
    assert isinstance(score, CLiDThreshold)
    assert isinstance(score.reducer, ImportantWords)
    assert score.queries == 15
    assert audit.seed == 3


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Two folders of six random images with captions."""
    generator = torch.Generator().manual_seed(3)
    for part in ("members", "nonmembers"):
        folder = tmp_path / part
        folder.mkdir()
        rows = []
        for number in range(6):
            name = f"{part}{number}.png"
            save_image(torch.rand(3, 32, 32, generator=generator), folder / name)
            rows.append(json.dumps({"file_name": name, "text": f"a photo of dog {number}"}))
        (folder / "metadata.jsonl").write_text("\n".join(rows))
    return tmp_path


@pytest.fixture
def audited(sets: Path, small_sd: Path, capsys: pytest.CaptureFixture[str]) -> Audited:
    """Runs the verb on the sets; returns stdout and stderr. Mistakes end with 2."""
    config = sets / "cheap.yaml"
    config.write_text(CHEAP)

    def run(*changes: str, fails: bool = False) -> tuple[str, str]:
        arguments = ["audit", "--config", str(config), "--output_dir", str(sets / "runs")]
        for key in ("members", "nonmembers"):
            arguments += [f"--audit.{key}", str(sets / key)]
        model = "--audit.target.pretrained_model_name_or_path"
        capsys.readouterr()
        if fails:
            with pytest.raises(SystemExit) as left:
                main([*arguments, model, str(small_sd), *changes])
            assert left.value.code == 2
        else:
            main([*arguments, model, str(small_sd), *changes])
        return capsys.readouterr()

    return run


def test_it_writes_a_report_and_says_the_verdict(audited: Audited, sets: Path) -> None:
    said, _ = audited()
    folder = sets / "runs/audit-cheap"
    assert said.endswith(f"{folder / 'report.html'}\n")
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"]["text"] in said
    assert report["settings"]["members"] == str(sets / "members")


def test_a_damaged_picture_is_named_in_the_report(audited: Audited, sets: Path) -> None:
    (sets / "members/members1.png").write_bytes(b"\x89PNG broken")
    audited("--output", str(sets / "here"))
    report = json.loads((sets / "here/report.json").read_text())
    assert any("members1.png" in each and "left out" in each for each in report["warnings"])


def test_one_sentence_stands_for_missing_captions(audited: Audited, sets: Path) -> None:
    for part in ("members", "nonmembers"):
        (sets / part / "metadata.jsonl").unlink()
    said, _ = audited("--audit.caption", "a photo of a dog", "--output", str(sets / "here"))
    assert "report.html" in said
    assert "a photo of a dog" in (sets / "here/scores.csv").read_text()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (["--audit.memberss", "x"], ["no option 'audit.memberss'", "'audit.members'"]),
        (["--audit.seed", "many"], ["audit.seed: expected int, got 'many'"]),
        (["--audit.statistics.resamples", "5"], ["audit.statistics.resamples is 5"]),
        (["--audit.headline", "Loss"], ["audit.headline is 'Loss'", "CLiD_th"]),
        (["--audit.members", "{sets}/none"], ["audit.members", "does not exist"]),
        (["--audit.members", "{sets}/empty"], ["No images", "audit.members"]),
        (["--audit.nonmembers", "{sets}/members"], ["6 images are in both audit.members and"]),
        (["--audit.nonmembers", "{sets}/mute"], ["have no caption", "set audit.caption"]),
        (["--audit.nonmembers", "{sets}/broken"], ["None of the 1 images", "audit.nonmembers"]),
        (["--audit.shadow_members", "{sets}/members"], ["comes with both its sets"]),
        (["--audit.caption", "a", "--audit.captioner", "b"], ["give one of them"]),
        (["--audit.base.lora", "x"], ["give audit.base.pretrained_model_name_or_path too"]),
        (["--audit.shadow.checkpoint", "x"], ["audit.shadow.checkpoint is given without a model"]),
        (
            ["--audit.controls.captions", "true", "--audit.controls.fixed_caption", ""],
            ["audit.controls.fixed_caption is empty"],
        ),
        (["--audit.captioner", "{sets}/mute"], ["captioner", "cannot be loaded", "audit.caption"]),
        (["--audit.target.checkpoint", "{sets}/cheap.yaml"], ["is no file of weights"]),
        (
            ["--audit.target.pretrained_model_name_or_path", "{sets}/sample"],
            ["'sample'", "audit.target.pretrained_model_name_or_path"],
        ),
        (
            ["--audit.target.pretrained_model_name_or_path", "{sets}/members"],
            ["without model_index.json", "audit.target"],
        ),
    ],
)
def test_a_mistake_is_one_line(
    audited: Audited, sets: Path, small_sd: Path, changes: list[str], parts: list[str]
) -> None:
    for name in ("empty", "mute", "broken"):
        (sets / name).mkdir()
    save_image(torch.zeros(3, 32, 32), sets / "mute/black.png")
    (sets / "broken/a.png").write_bytes(b"\x89PNG broken")
    (sets / "broken/a.txt").write_text("a dog")
    if "sample" in changes[1]:
        shutil.copytree(small_sd, sets / "sample")
        scheduler = sets / "sample/scheduler/scheduler_config.json"
        settings = json.loads(scheduler.read_text())
        scheduler.write_text(json.dumps(settings | {"prediction_type": "sample"}))
    _, error = audited(*(each.format(sets=sets) for each in changes), fails=True)
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert "usage" not in error
    for part in parts:
        assert part in error
