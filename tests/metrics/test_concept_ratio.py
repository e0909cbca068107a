"""Ratios of concepts: python -m pytest tests/metrics/test_concept_ratio.py"""

import math

import pytest
from scipy.stats import binomtest

from shortcut_lightning.metrics.concept_ratio import bin_ratio, concept_ratio, f_star_r
from shortcut_lightning.metrics.estimate import Estimate


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (3, 40), (300, 1000), (1, 1), (40, 40)])
def test_wilsons_interval_is_scipys(hits: int, n: int) -> None:
    ratio = concept_ratio([True] * hits + [False] * (n - hits))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert ratio.value == hits / n
    assert ratio.low == pytest.approx(expected.low, abs=1e-6)
    assert ratio.high == pytest.approx(expected.high, abs=1e-6)
    assert ratio.n == n


def test_no_images_no_ratio() -> None:
    assert math.isnan(concept_ratio([]).value)


def test_where_concepts_appear() -> None:
    assert bin_ratio([[0, 0, 3], [3], [], []], 2).tolist() == [[0.25, 0.0], [0.0, 0.5]]
    assert bin_ratio([], 2).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_distance_times_percent() -> None:
    """The paper's own row: distance 6.42 and ratio 7.23 % make 46.4."""
    found = f_star_r(Estimate(6.42, 6, 7, 100), Estimate(0.0723, 0.05, 0.1, 50))
    assert found == pytest.approx((46.4166, 30, 70, 50))
