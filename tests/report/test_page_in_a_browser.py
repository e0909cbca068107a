"""The report of a run in a real browser: pytest tests/report/test_page_in_a_browser.py"""

from pathlib import Path

import pytest
import torch
from browser import asked, is_readable, needs_browser

from shortcut_lightning.report import sections
from shortcut_lightning.report.curves import Curve
from shortcut_lightning.report.summary import Report, installed_versions

EVIL = (
    """<script>document.title = "broken"</script><img src=x onerror="document.title='broken'">'"&"""
)
METRICS = {
    "eval/clip_t": {"value": 0.31, "low": 0.28, "high": 0.33, "n": 32},
    "base/clip_t": {"value": 0.30, "low": 0.27, "high": 0.34, "n": 32},
}


@pytest.fixture
def page(tmp_path: Path) -> str:
    """A report of everything that a run can show, with markup wherever a user can write."""
    picture = torch.rand(3, 32, 32)
    photographs = [
        sections.Photograph(f"{EVIL} {n}.jpg", picture, (picture + 0.04).clamp(0, 1))
        for n in range(4)
    ]
    generated = [sections.Generated(EVIL, {"tuned": [picture] * 8, "base": [picture] * 8})]
    curve = Curve("train/loss", [(step, 1 / (step + 1)) for step in range(0, 300, 10)])
    config = f"data:\n  instance_prompt: {EVIL!r}\n  long: {'x' * 300}\n"
    report = Report(
        title=EVIL,
        metrics=METRICS,
        warnings=[EVIL],
        seconds={"train": 12.3, EVIL: 2.0},
        counts={"instance images": 4},
        throughput={"steps/s": 3.2},
        config="data:\n  long: x\n",
        versions=installed_versions(),
        sections=[
            sections.photographs(photographs),
            sections.generated(generated),
            sections.metrics(METRICS, {"eval/clip_t": EVIL}),
            sections.cautions([EVIL]),
            sections.training([curve]),
            sections.seconds({"train": 12.3, EVIL: 2.0}),
            sections.setup(config, installed_versions()),
        ],
    )
    report.write(tmp_path)
    return (tmp_path / "report.html").read_text("utf-8")


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_readable_on_a_phone_and_in_the_dark(page: str, dark: bool, tmp_path: Path) -> None:
    is_readable(page, tmp_path, dark)


@needs_browser
def test_what_people_wrote_stays_text(page: str, tmp_path: Path) -> None:
    script = """
        return {title: document.title, text: document.body.textContent,
                broken: [...document.images].filter(each => !each.naturalWidth).length,
                scripts: document.scripts.length, pictures: document.images.length};
    """
    said = asked(page, script, tmp_path)
    assert said["title"] != "broken"
    assert said["text"].count(EVIL) >= 4
    assert said["scripts"] == said["broken"] == 0
    assert said["pictures"] == 16
