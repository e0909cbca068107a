"""The page about growth is what its rows render: python -m pytest tests/test_scale.py"""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import scale
import scale_page


def test_the_page_is_what_the_rows_say() -> None:
    page = scale_page.rendered(scale.read(scale.RESULTS), scale_page.inputs())
    assert scale_page.PAGE.read_text("utf-8") == page, "python tests/benchmarks/scale_page.py"


def test_hours_and_money_are_those_of_the_rate_that_is_given() -> None:
    given = {row["key"]: row["value"] for row in scale_page.inputs({"rate": 50, "price": 3})}
    given |= {"decode": 0.01, "models": 1, "cores": 4, "gpus_per_node": 8}
    found = scale_page.cost(given, 1e6, 8)
    assert found.hours == pytest.approx(1e6 / (8 * 50) / 3600)
    assert found.dollars == pytest.approx(found.hours * 8 * 3)
    # 400 pictures a second need 4 of 32 cores; network and disk have more to spare.
    assert (found.bottleneck, found.share) == ("decoding", pytest.approx(4 / 32))
    twice = scale_page.cost(given, 1e6, 16)
    assert twice.hours == pytest.approx(found.hours / 2)
    assert twice.dollars == pytest.approx(found.dollars)


def test_what_was_not_measured_is_said_and_rows_replace_their_own(tmp_path: Path) -> None:
    rows = [
        scale.Row("start", "one shard", "local", 1, "s in all", 2.0),
        scale.Row("memory", "tiny pictures", "ray 1", 1000, "driver MB", 512.0),
    ]
    scale.write(tmp_path / "rows.csv", rows)
    scale.write(tmp_path / "rows.csv", [rows[0]._replace(value=3.0)])
    read = scale.read(tmp_path / "rows.csv")
    assert read == [rows[1], rows[0]._replace(value=3.0)]
    page = scale_page.rendered(read, scale_page.inputs())
    assert "Not measured yet: speed (`python tests/benchmarks/scale.py --parts speed`)" in page
    assert "| ray 1 | 1000 | 512 |" in page
    assert math.isnan(scale_page.cost({**_given(), "decode": math.nan}, 1e6, 8).share)


def _given() -> dict[str, float]:
    return {row["key"]: row["value"] for row in scale_page.inputs()}
