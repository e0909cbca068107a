"""The report at the end of a run. Run: pytest tests/callbacks/test_reporting.py"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from flow_models import write_small_flux, write_small_klein, write_small_z_image
from markupsafe import escape
from small_run import Colours, SmallData, SmallModule, small_trainer

from shortcut_lightning import backbones, callbacks
from shortcut_lightning.callbacks import (
    ClipAlignment,
    Evaluation,
    EvaluationCallback,
    FrechetDistance,
    IdentityMatch,
    ReportWriter,
    SampleGrid,
    SaveImages,
    Throughput,
)
from shortcut_lightning.report.page import Section, fill


class Extra(EvaluationCallback):
    """Adds a section of its own."""

    def show(self, samples, trainer, folder):
        return [Section("Something new", fill("cautions.html", sentences=["one & two"]))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, fit and test, with every callback."""
    folder = tmp_path_factory.mktemp("report")
    everything = [
        Evaluation(),
        ClipAlignment(Colours()),
        IdentityMatch(Colours()),
        FrechetDistance(Colours()),
        SampleGrid(),
        SaveImages(),
        Extra(),
        Throughput(warm_up_steps=1),
        ReportWriter(),
    ]
    trainer = small_trainer(folder, everything)
    module, data = SmallModule(), SmallData()
    trainer.fit(module, datamodule=data)
    (folder / "run" / "v" / "config.yaml").write_text("seed_everything: 3\nmodel: {rank: 8}\n")
    trainer.test(module, datamodule=data, verbose=False)
    return folder / "run" / "v"


def test_report_json_holds_what_happened(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    names = ["clip_t", "clip_i", "identity", "fid_colours", "kid_colours"]
    assert set(report["metrics"]) == {f"{a}/{n}" for a in ("eval", "base") for n in names}
    for estimate in report["metrics"].values():
        assert set(estimate) == {"value", "low", "high", "n"}
    assert report["extractors"]["eval/identity"] == "colours"
    assert report["counts"]["instance images"] == 6
    assert report["counts"]["reference images"] == 5
    assert report["counts"]["tuned images"] == report["counts"]["base images"] == 12
    assert {"perturb", "train", "sample", "ClipAlignment"} <= set(report["seconds"])
    assert report["throughput"]["steps/s"] > 0
    assert report["throughput"]["images/s"] == pytest.approx(2 * report["throughput"]["steps/s"])
    assert report["config"] == {"seed_everything": 3, "model": {"rank": 8}}
    assert {"torch", "lightning", "diffusers", "transformers", "peft"} <= set(report["versions"])
    assert report["versions"]["torch"] == torch.__version__
    assert any("Fewer than 10" in warning for warning in report["warnings"])
    assert report["title"] == "a photo of sks thing"


def test_report_html_shows_it(run: Path) -> None:
    html = (run / "report.html").read_text()
    for heading in (
        "Photographs",
        "Generated images",
        "Measurements",
        "Read with care",
        "Something new",
        "Training",
        "Time",
        "Configuration",
    ):
        assert f"<h2>{heading}</h2>" in html
    assert "up to 8/255" in html
    assert "train/loss_prior" in html
    assert "rank: 8" in html
    assert "a &lt;b&gt;bold&lt;/b&gt; thing" in html  # a prompt is text, whatever it holds
    assert html.count("data:image/png") == 6 * 2 + 3 * 2 * 4


def test_photographs_are_paired_by_name_where_some_were_dropped(tmp_path) -> None:
    data = SmallData()
    data.trained_on = data.trained_on[2:]
    small_trainer(tmp_path, [Evaluation(), ReportWriter()]).test(
        SmallModule(), datamodule=data, verbose=False
    )
    page = (tmp_path / "run" / "v" / "report.html").read_text()
    shown = page[: page.index("Generated")]
    assert "2.jpg" in shown
    assert "0.jpg" not in shown
    assert "changed a pixel by up to 8/255" in " ".join(shown.split())


def test_a_test_alone_writes_a_report_without_training(tmp_path) -> None:
    trainer = small_trainer(tmp_path, [ReportWriter(title="Mine"), Throughput(), Evaluation()])
    trainer.test(SmallModule(), datamodule=SmallData(), verbose=False)
    html = (tmp_path / "run" / "v" / "report.html").read_text()
    assert "<h1>Mine</h1>" in html
    assert "<h2>Training</h2>" not in html
    assert json.loads((tmp_path / "run" / "v" / "report.json").read_text())["metrics"] == {}


def test_loaders_alone_are_enough(tmp_path) -> None:
    data = SmallData()
    trainer = small_trainer(tmp_path, [Evaluation(), ClipAlignment(Colours()), ReportWriter()])
    data.trainer = trainer
    trainer.test(SmallModule(), dataloaders=data.batches("tuned"), verbose=False)
    report = json.loads((tmp_path / "run" / "v" / "report.json").read_text())
    assert list(report["metrics"]) == ["eval/clip_t"]
    assert report["title"] == "Untitled run"


DISTILLED: dict[str, Callable[[Path], Path]] = {
    "FLUX.1-dev": write_small_flux,
    "FLUX.2-klein": partial(write_small_klein, distilled=True),
    "Z-Image-Turbo": write_small_z_image,  # nothing but its name tells it
}


@pytest.mark.parametrize("name", DISTILLED)
def test_what_a_distilled_model_cannot_do_is_among_the_warnings(name: str, tmp_path: Path) -> None:
    module = SmallModule()
    module.backbone = backbones.load(str(DISTILLED[name](tmp_path / name)))
    trainer = small_trainer(tmp_path, [Evaluation(), ReportWriter(protection=False)])
    trainer.test(module, datamodule=SmallData(), verbose=False)
    (remark,) = module.backbone.remarks
    assert "The model is distilled to" in remark
    report = json.loads((tmp_path / "run" / "v" / "report.json").read_text())
    assert remark in report["warnings"]
    assert str(escape(remark)) in (tmp_path / "run" / "v" / "report.html").read_text()


def test_no_logger_is_no_obstacle(tmp_path) -> None:
    trainer = small_trainer(
        tmp_path, [Evaluation(), ReportWriter()], logger=False, default_root_dir=tmp_path
    )
    trainer.test(SmallModule(), datamodule=SmallData(), verbose=False)
    assert (tmp_path / "report.html").exists()


def test_throughput_refuses_a_negative_warm_up() -> None:
    with pytest.raises(ValueError, match=r"Throughput\.warm_up_steps is -1"):
        Throughput(warm_up_steps=-1)


@pytest.mark.parametrize("name", callbacks.__all__)
def test_every_name_leads_to_its_class(name: str) -> None:
    assert getattr(callbacks, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Evaluator'"):
        _ = callbacks.Evaluator


def test_callbacks_can_be_written_in_yaml() -> None:
    from jsonargparse import ArgumentParser
    from lightning.pytorch import Callback

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callbacks", type=list[Callback])
    home, metrics = "shortcut_lightning.callbacks", "shortcut_lightning.metrics"
    plain = ["Evaluation", "SampleGrid", "ClipAlignment", "FrechetDistance", "ReportWriter"]
    dino = {"class_path": f"{metrics}.Dino", "init_args": {"pretrained_model_name_or_path": "d"}}
    identity = {"class_path": f"{home}.IdentityMatch", "init_args": {"encoder": dino}}
    entries = [{"class_path": f"{home}.{name}"} for name in plain]
    made = parser.instantiate(parser.parse_object({"callbacks": [*entries, identity]})).callbacks
    assert [type(callback).__name__ for callback in made] == [*plain, "IdentityMatch"]
    assert made[-1].extractor == "d"
    assert made[2].extractor == "pocket-clip"
    # A DINO reads no words, so it is not for this metric.
    wrong = {"class_path": f"{home}.ClipAlignment", "init_args": {"encoder": dino}}
    with pytest.raises(Exception, match="Dino"):
        parser.parse_object({"callbacks": [wrong]})


def test_naming_the_package_loads_nothing() -> None:
    code = "import sys, shortcut_lightning.callbacks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
