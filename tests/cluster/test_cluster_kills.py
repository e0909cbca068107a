"""A short form of the campaign of kills: `pytest tests/cluster/test_cluster_kills.py -m slow`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import cluster_kills


@pytest.mark.slow
def test_an_actor_a_node_and_a_driver_are_lost_and_no_row(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra cluster")
    rows = cluster_kills.campaign(["rows"], 3, 1, tmp_path / "kills", tmp_path / "rows.csv")
    assert rows == cluster_kills.read(tmp_path / "rows.csv")
    assert [row.victim for row in rows] == ["actor", "node", "driver"]
    assert all(row.right for row in rows), rows
