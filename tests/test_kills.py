"""A short form of the campaign of kills: `pytest tests/test_kills.py -m slow`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import kills


@pytest.mark.slow
def test_a_handful_of_kills_end_in_the_same_bits(tmp_path: Path) -> None:
    rows = kills.campaign(["ema", "protect", "audit"], count=3, seed=1, folder=tmp_path)
    assert len(rows) == 3
    assert all(row.right for row in rows), [row for row in rows if not row.right]
