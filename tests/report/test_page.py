"""The page and its files. Run: pytest tests/report/test_page.py"""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch
from markupsafe import Markup
from PIL import Image

from shortcut_lightning.report import sections
from shortcut_lightning.report.axis import Axis, number
from shortcut_lightning.report.curves import Curve, read_losses
from shortcut_lightning.report.page import Page, Section, render
from shortcut_lightning.report.pictures import Row, data_uri, sheet, to_pil
from shortcut_lightning.report.plots import lines
from shortcut_lightning.report.summary import Report, installed_versions

MEASURED = {
    "eval/clip_t": {"value": 0.31, "low": 0.28, "high": 0.33, "n": 32},
    "base/clip_t": {"value": 0.30, "low": 0.27, "high": 0.34, "n": 32},
    "eval/fid_pocket": {"value": math.nan, "low": math.nan, "high": math.nan, "n": 1},
    "eval/own": {"value": 4.0, "low": 3.0, "high": 5.0, "n": 9},
}


class Balance(HTMLParser):
    """Collects addresses and checks that tags close in order."""

    void = {"meta", "img", "link", "br", "input"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.addresses += [value for key, value in attrs if key in ("src", "href", "srcset")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        pass

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def report() -> Report:
    """A report with every standard section."""
    image = torch.rand(3, 16, 16)
    photograph = sections.Photograph("a.jpg", image, (image + 11 / 255).clamp(0, 1))
    generated = sections.Generated("a photo", {"tuned": [image] * 6, "base": [image]})
    return Report(
        title="a photo of <sks>",
        metrics=MEASURED,
        warnings=["mind & this"],
        seconds={"train": 12.3456, "sample": 2.0},
        counts={"instance images": 4, "class images": 0},
        throughput={"steps/s": 3.21},
        config="model:\n  rank: 8\n",
        versions=installed_versions(),
        sections=[
            sections.photographs([photograph]),
            sections.generated([generated]),
            sections.metrics(MEASURED, {"eval/clip_t": "pocket-clip"}),
            sections.cautions(["mind & this"]),
            sections.training([Curve("train/loss", [(0, 1.0), (1, 0.5)])]),
            sections.seconds({"train": 12.3456, "sample": 2.0}),
            sections.setup("model:\n  rank: 8\n", installed_versions()),
        ],
    )


def test_page_is_whole_and_stands_alone(report: Report, tmp_path) -> None:
    report.write(tmp_path)
    html = (tmp_path / "report.html").read_text()
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert parser.addresses
    assert all(address.startswith("data:image/") for address in parser.addresses)
    assert not re.search(r"https?://|url\(|@import|<script", html)


def test_page_escapes_what_people_wrote(report: Report) -> None:
    html = render(Page(report.title, report.facts(), report.sections))
    assert "<h1>a photo of &lt;sks&gt;</h1>" in html
    assert "mind &amp; this" in html


def test_sections_come_in_the_order_given() -> None:
    html = render(Page("t", [], [Section("Two", Markup("<p>x</p>")), Section("One", Markup(""))]))
    assert html.index("<h2>Two</h2>") < html.index("<p>x</p>") < html.index("<h2>One</h2>")


def test_report_json_is_strict(report: Report, tmp_path) -> None:
    report.write(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "report.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    assert content["metrics"]["eval/clip_t"] == MEASURED["eval/clip_t"]
    assert content["metrics"]["eval/fid_pocket"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 1,
    }
    assert content["config"] == {"model": {"rank": 8}}
    assert content["seconds"] == {"train": 12.346, "sample": 2.0}


def test_head_of_the_page_leaves_out_what_there_is_none_of(report: Report) -> None:
    assert report.facts() == ["4 instance images", "3.21 steps/s", "seed 0"]


def test_metrics_of_both_arms_share_a_row_and_undefined_ones_say_so() -> None:
    html = str(sections.metrics(MEASURED, {"eval/clip_t": "pocket-clip"}).html)
    assert html.count('class="metric"') == 3
    assert "clip_t, by pocket-clip" in html
    assert "not defined" in html
    assert "<h3>own</h3>" in html  # a metric nobody has described yet
    dots = [float(x) for x in re.findall(r'<b style="left:([\d.]+)%', html)]
    assert dots[0] > dots[1]  # 0.31 lies right of 0.30


def test_photographs_that_no_stage_changed_are_shown_once() -> None:
    image = torch.rand(3, 8, 8)
    once = sections.photographs([sections.Photograph("a.jpg", image, image)])
    assert once.lead == "1 instance images; trained on as given."
    assert str(once.html).count("<img") == 1
    cropped = sections.photographs([sections.Photograph("a.jpg", image, image[:, :4, :4])])
    assert str(cropped.html).count("<img") == 2
    # What is said of all is looked at in all, shown or not.
    late = [sections.Photograph(f"{i}.jpg", image, image) for i in range(13)]
    late[12] = late[12]._replace(trained_on=image - 20 / 255)
    said = sections.photographs(late).lead
    assert said == "13 instance images, 12 shown; the stages changed a pixel by up to 20/255."


def test_long_evaluations_show_a_part_and_say_where_the_rest_is() -> None:
    many = [
        sections.Generated(f"p{i}", {"tuned": [torch.rand(3, 8, 8)] * 9, "base": []})
        for i in range(20)
    ]
    section = sections.generated(many)
    assert section.lead == "180 images of 20 prompts; 48 shown, all are in samples/."


def test_small_images_are_exact_and_large_ones_light() -> None:
    image = torch.arange(3 * 8 * 8).reshape(3, 8, 8).float() / 255
    kind, data = data_uri(image).split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
        assert decoded.tobytes() == to_pil(image).tobytes()
    kind, data = data_uri(torch.rand(3, 600, 300)).split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
        assert decoded.size == (128, 256)


def test_sheet_places_each_image() -> None:
    red, blue = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    red[0], blue[2] = 1, 1
    picture = sheet([Row("first", [[red, red], [blue]]), Row("second", [[blue], []])], "ab", 20)
    colours = [colour for _, colour in picture.getcolors(100_000)]
    assert (255, 0, 0) in colours
    assert (0, 0, 255) in colours
    reds = sum(n for n, colour in picture.getcolors(100_000) if colour == (255, 0, 0))
    assert reds == 2 * 20 * 20


def test_losses_are_read_from_a_table_with_gaps(tmp_path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,eval/clip_t,step,train/loss,train/loss_prior,val/loss\n"
        "0,,0,1.5,,\n0,,1,nan,0.25,\n0,,1,,,2.0\n0,,2,0.5,0.5,\n,0.3,3,,,\n"
    )
    losses = {curve.name: curve.points for curve in read_losses(path)}
    assert losses == {
        "train/loss": [(0, 1.5), (2, 0.5)],
        "train/loss_prior": [(1, 0.25), (2, 0.5)],
        "val/loss": [(1, 2.0)],
    }
    assert read_losses(tmp_path / "none.csv") == []


def test_smoothing_and_thinning_keep_the_mean_of_a_line() -> None:
    line = Curve("x", [(i, 2.0 * i) for i in range(1000)])
    smooth, thin = line.smoothed(101), line.thinned(100)
    assert smooth.points[500] == (500, 1000.0)
    assert len(smooth.points) == 1000
    assert len(thin.points) == 100
    assert thin.points[0] == (4.5, 9.0)


def test_training_shows_a_curve_once_and_time_leaves_out_what_took_none() -> None:
    points = [(0.0, 1.0), (1.0, 0.5)]
    twice = [Curve("train/loss", points), Curve("train/loss_instance", list(points))]
    html = str(sections.training([*twice, Curve("val/loss", points[:1])]).html)
    assert "train/loss<" in html
    assert "val/loss<" in html
    assert "loss_instance" not in html
    html = str(sections.seconds({"train": 100.0, "purify": 1e-5}).html)
    assert "100 s" in html
    assert "purify" not in html


def test_a_plot_without_points_says_so() -> None:
    assert "Nothing was logged" in lines([], "steps")
    assert "<polyline" in lines([Curve("x", [(0, 1.0)])], "steps")


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.13, 0.42], ["0.2", "0.3", "0.4"]),
        ([0, 980], ["0", "500", "1\u202f000"]),
        ([-0.002, 0.003], ["−0.002", "0.000", "0.002"]),
        ([0.5, 0.5], ["0.2", "0.4", "0.6", "0.8"]),
        ([math.nan], ["0.0", "0.5", "1.0"]),
    ],
)
def test_axes_have_round_numbers(values, ticks) -> None:
    axis = Axis.around(values)
    assert [axis.round(tick) for tick in axis.ticks] == ticks
    assert all(axis.low <= v <= axis.high for v in values if math.isfinite(v))


def test_a_positive_quantity_never_has_a_negative_axis() -> None:
    assert Axis.around([0.01, 5.0]).low == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12.345, "12.3"), (1234.5, "1\u202f234"), (-0.5, "−0.500"), (math.nan, "–")],
)
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert number(value) == text


def test_an_infinite_setting_is_kept_as_written(tmp_path) -> None:
    Report("x", config="data: {erasing: [{alpha: .inf}, 1.5]}").write(tmp_path)
    config = json.loads((tmp_path / "report.json").read_text())["config"]
    assert config == {"data": {"erasing": [{"alpha": ".inf"}, 1.5]}}
