"""The verb `verify` as it is typed, on small random models: python -m pytest tests/verify"""

import json
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from markupsafe import escape

from shortcut_lightning.cli import main
from shortcut_lightning.cli.verify import _split, again
from shortcut_lightning.files.images import save_image

ATTACK = ["--data.attack", "pocket/advdm", "--data.attack.steps", "1"]
SETTINGS = {
    "trainer": {
        "max_steps": 1,
        "accelerator": "cpu",
        "callbacks": [
            {"class_path": name} for name in ("Throughput", "IdentityMatch", "Export", "SampleGrid")
        ],
    },
    "model": {
        "class_path": "DreamBooth",
        "init_args": {"sampling": {"num_inference_steps": 1}, "learning_rate": 0.03},
    },
    "data": {
        "class_path": "PersonalizationDataModule",
        "init_args": {
            "instance_prompt": "a photo of sks person",
            "train_batch_size": 1,
            "evaluation": {"images_per_prompt": 11},
        },
    },
}
QUICK = ["--effort=quick", "--workers=1", "--output=out"]
QUICK += ["--data.recursive=true", "--data.use_captions=true"]


def prepare(folder: Path, model: Path) -> None:
    """A recipe, and two photographs of other sizes, one in a subfolder under the other's name."""
    settings = json.loads(json.dumps(SETTINGS))
    settings["model"]["init_args"]["pretrained_model_name_or_path"] = str(model)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    (folder / "me" / "more").mkdir(parents=True)
    for name, side in (("a.png", 32), ("more/a.jpg", 48)):
        chance = torch.Generator().manual_seed(side)
        save_image(torch.rand(3, side, side + 8, generator=chance), folder / "me" / name)


def verify(*words: str) -> None:
    """Types the verb."""
    main(["verify", "--config", "recipe.yaml", "--data.instance_data_dir=me", *ATTACK, *words])


@pytest.fixture
def folder(small_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder where nothing was done yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHORTCUT_LIGHTNING_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path, small_sd)
    return tmp_path


@pytest.fixture(scope="module")
def made(small_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One in which a quick verification is finished, in out/."""
    folder = tmp_path_factory.mktemp("made")
    prepare(folder, small_sd)
    (folder / "me" / "a.txt").write_text("a photo of sks person in a wood")
    (folder / "me" / "more" / "a.txt").write_text("a photo of sks person at sea")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SHORTCUT_LIGHTNING_CACHE", str(folder / "cache"))
        verify(*QUICK)
    return folder


@pytest.fixture
def there(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In that folder."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("SHORTCUT_LIGHTNING_CACHE", str(made / "cache"))
    return made


def states(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("version_*/report.json")}


def test_a_page_comes_out(made: Path) -> None:
    out = made / "out"
    answer = json.loads((out / "verify.json").read_text())
    assert answer["verdict"][0].startswith("Worst case: ")
    assert "Judged by pocket-identity and pocket-attributes." in answer["verdict"][0]
    assert answer["runs"] == {"finished": 7, "planned": 7}
    assert {each["route"] for each in answer["findings"]} == {"as given", "JPEG and half size"}
    assert answer["worst"] == answer["findings"][0]["route"]
    one = answer["findings"][0]["measures"]["eval/identity"]
    assert one["below_clean"]["pictures"] == 11
    means = one["means"]
    assert one["below_clean"]["mean"] == pytest.approx(means["clean"] - means["protected"])
    assert answer["photographs"]["damage"]["protected"]["largest, /255"] <= 11.01
    assert not any("rehearsal" in each for each in answer["limits"])  # no built-in model
    assert any("Not tried: restoration" in each for each in answer["limits"])
    page = (out / "verify.html").read_text()
    assert all(str(escape(sentence)) in page for sentence in answer["verdict"])
    assert page.count("data:image/") == 2 * 4 + 2 * 3 * 1  # photographs; arms, of one prompt
    assert not list(out.rglob("export"))  # twenty models would fill a disk


def test_the_command_to_go_on_can_be_pasted() -> None:
    words = [
        "--data.instance_prompt",
        "a photo of sks' dog",
        "--data.instance_data_dir=my pictures",
    ]
    assert shlex.split(again(words))[2:] == words


def test_an_empty_value_ends_nothing() -> None:
    words = ["--data.evaluation.negative_prompt", "", "--restoration", "", "--effort", "quick"]
    assert _split([*words, "--dry_run"]) == (
        ["--restoration=", "--effort=quick", "--dry_run=true"],
        words[:2],
    )


def test_all_learn_from_the_same_copies(made: Path) -> None:
    configs = {
        path.parent.parent.name: yaml.safe_load(path.read_text())["data"]["init_args"]
        for path in (made / "out" / "runs").rglob("version_*/config.yaml")
    }
    learnt = {arm: Path(config["instance_data_dir"]).name for arm, config in configs.items()}
    routes = ("as-given", "JPEG-and-half-size")
    folders = {"protected": "protected", "noise": "noise", "clean": "instance"}
    expected = {f"{n}-{route}": name for n, name in folders.items() for route in routes}
    assert learnt == {**expected, "untouched-as-given": "instance"}
    attacks = {config["attack"]["class_path"].rpartition(".")[2] for config in configs.values()}
    assert attacks == {"NoAttack"}
    chain = [each["class_path"] for each in configs["clean-JPEG-and-half-size"]["purifiers"]]
    assert [path.rpartition(".")[2] for path in chain] == ["Jpeg", "Resize"]


def test_copies_keep_photographs_apart_and_their_captions(made: Path) -> None:
    photographs = made / "out" / "photographs"
    for name, suffix in (("instance", "jpg"), ("protected", "png"), ("noise", "png")):
        rows = (photographs / name / "metadata.jsonl").read_text().splitlines()
        assert [json.loads(row) for row in rows] == [
            {"file_name": "001-a.png", "text": "a photo of sks person in a wood"},
            {"file_name": f"002-a.{suffix}", "text": "a photo of sks person at sea"},
        ]
    original = (made / "me" / "a.png").read_bytes()
    assert (photographs / "reference" / "001-a.png").read_bytes() == original


def test_the_same_command_goes_on(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = states(there / "out")
    assert len(before) == 7
    (there / "out" / "verify.html").unlink()
    verify(*QUICK)
    said = capsys.readouterr()
    assert states(there / "out") == before
    assert (there / "out" / "verify.html").is_file()
    answer = json.loads((there / "out" / "verify.json").read_text())
    assert answer["verdict"][0] in said.out
    assert "finished     7 of 7 runs" in said.err
    verify(*QUICK, "--dry_run=true")
    assert "finished     7 of 7 runs" in capsys.readouterr().out


def test_another_question_needs_another_folder(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, says in (
        (["--data.attack.epsilon=16"], "out was made with data.attack.epsilon 11.0, now 16.0"),
        (["--trainer.max_steps=2"], "out was made with trainer.max_steps 1, now 2"),
        (["--data.recursive=false"], "out was made of other photographs"),
    ):
        with pytest.raises(SystemExit):
            verify(*QUICK, *words)
        assert f"{says}; give another --output." in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_do_and_does_nothing(
    folder: Path, small_sd3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    verify("--dry_run", f"--family={small_sd3}", "--restoration=tvm", "--effort", "full")
    said = capsys.readouterr().out
    assert "trainings    63 of 1 steps, 11 pictures of each; 54 of" in said
    assert f"and 9 of {small_sd3}" in said
    assert "time         not known: 66 steps and 726 pictures in all" in said
    assert "folder       runs/verify/recipe-me-AdvDM" in said
    assert sorted(folder.rglob("*")) == before
    verify("--dry_run", "--data.instance_data_dir=pocket:20", "--workers", "1",
           "--model.pretrained_model_name_or_path=pocket")  # fmt: skip
    said = capsys.readouterr().out
    assert "18 of pocket and 3 of pocket-flow" in said
    assert "with 1 process at work" in said


def test_time_is_told_from_an_earlier_run(
    folder: Path, capsys: pytest.CaptureFixture[str], small_sd: Path
) -> None:
    for name in ("x", "y"):
        (folder / "runs" / name / "version_0").mkdir(parents=True)
        (folder / "runs" / name / "version_0" / "report.json").write_text("{")
    report = {"model": f"{small_sd.name} 0f", "throughput": {"steps/s": 0.5}}
    report |= {"counts": {"tuned images": 4}, "seconds": {"sample": 40.0}}
    (folder / "runs" / "x" / "version_0" / "report.json").write_text(json.dumps(report))
    verify("--dry_run", "--workers=1", "--effort=quick")
    # 7 runs of 10 seconds to begin, a step of 2 and 11 pictures of 10.
    assert "about 14 minutes with 1 process at work" in capsys.readouterr().out


@pytest.mark.slow
def test_every_route_by_two_processes(folder: Path, small_sd3: Path) -> None:
    words = ["--workers=2", "--output=out", f"--family={small_sd3}", "--restoration=gaussian"]
    verify(*words, "--data.purifiers=[jpeg]")
    answer = json.loads((folder / "out" / "verify.json").read_text())
    assert answer["runs"] == {"finished": 25, "planned": 25}
    assert set(answer["models"]) == {"epsilon", "flow"}
    routes = {each["route"] for each in answer["findings"]}
    name = small_sd3.name
    assert routes == {
        *("as given", "JPEG and half size", "JPEG", "restored", "your purifiers"),
        *(f"drawn anew by {name}", f"autoencoder of {name}", f"learnt by {name}"),
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--effort=some"], "effort"),
        (["--efort=quick"], "no option 'efort'; did you mean 'effort'?"),
        (["--workers=-1"], "workers is -1; it must be at least 0"),
        (["--workers"], "--workers: give a value"),
        (["--name=x"], "--name: verify does not take it; --output names its folder"),
        (["--ckpt_path=last"], "--ckpt_path: verify does not take it"),
        (["--restoration=tvmm"], "--restoration: no file or preset 'tvmm'; did you mean 'tvm'?"),
        (["--family=/no/such"], "--family: no folder '/no/such'"),
        (["--family=sd15"], "--family: 'sd15' is no folder and no hub id, owner/name; or give "),
        (
            ["--family=pocket", "--model.pretrained_model_name_or_path=pocket"],
            "--family is 'pocket', the model that the protection is made against",
        ),
        (["--data.attack=NoAttack"], "data.attack is not set, so there is no protection to verify"),
        (["--data.attack.epsilon=300"], "data.attack.epsilon is 300; it must be from 1 to 255"),
        (["--data.attack_share=0.5"], "data.attack_share is 0.5, and verify protects all"),
        (["--trainer.max_steps=0"], "is 0: nothing would be learnt"),
        (
            ["--effort=quick", "--data.evaluation.images_per_prompt=8"],
            "data.evaluation.images_per_prompt is 8, which makes 8 pictures of each case; none of "
            "the 8 comparisons shows an effect with fewer than 9: give 9 or more.",
        ),
        (["--data.atack=advdm"], "takes no 'atack'; did you mean 'attack'?"),
        (["--data.instance_data_dir=/no/such"], "/no/such (data.instance_data_dir), which does"),
        (["--data.instance_data_dir=empty"], "found an empty folder"),
        (["--data.instance_data_dir=pocket:x"], "a generated subject is written pocket:<seed>"),
        (["--data.reference_data_dir=empty"], "found an empty folder"),
        (["--data.use_captions=true"], "have no caption"),
        (["--trainer.callbacks=[Evaluation]"], "trainer.callbacks has no IdentityMatch"),
        (["--model=lightning.pytorch.demos.boring_classes.BoringModel"], "verify needs data:"),
        (["--config=/no/such.yaml"], "--config: no file '/no/such.yaml'"),
    ],
)
def test_mistakes_cost_a_line_and_nothing_is_made(
    words: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(SystemExit) as end:
        verify(*words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not list(folder.rglob("version_*"))


@pytest.mark.slow
def test_a_run_that_fails_leaves_a_page_of_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = "[{class_path: Upscaler, init_args: {pretrained_model_name_or_path: /no/such}}]"
    with pytest.raises(SystemExit) as end:
        verify("--workers=1", "--output=out", f"--data.purifiers={missing}")
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "3 cells failed" in error
    assert "/no/such" in error
    answer = json.loads((folder / "out" / "verify.json").read_text())
    assert [name for name in answer["unfinished"] if "your purifiers" not in name] == []
    assert "your purifiers" not in {each["route"] for each in answer["findings"]}
    assert "not finished" in (folder / "out" / "verify.html").read_text()
