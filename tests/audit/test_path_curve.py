"""Where on the path members are told: pytest tests/audit/test_path_curve.py"""

import numpy as np
import pytest
import torch

from shortcut_lightning.audit.evaluator import Features
from shortcut_lightning.audit.path_curve import path_curve, predicted_peak, shares_of
from shortcut_lightning.membership import roc


def test_the_curve_is_the_auc_of_every_column() -> None:
    rng = np.random.default_rng(0)
    target = Features(*rng.normal(size=(2, 30, 3)))
    target.members[:, 1] += 1.5
    base = Features(*rng.normal(size=(2, 30, 3)))
    curve = path_curve([0, 500, 900], [0.1, 0.5, 0.9], target, base, torch.randn(20, 4, 2, 2))
    columns = [(target.members[:, c], target.holdouts[:, c]) for c in range(3)]
    assert [level.auc for level in curve.levels] == [roc.auc(*pair) for pair in columns]
    assert curve.levels[1].base == roc.auc(base.members[:, 1], base.holdouts[:, 1])
    assert curve.peak == curve.levels[1]
    assert curve.peak.share == 0.5
    first = Features(target.members[:, :1], target.holdouts[:, :1])
    alone = path_curve([0], [0.1], first, None, torch.randn(20, 4, 2, 2))
    assert alone.levels[0].base is None


@pytest.mark.parametrize("spread", [0.2, 1.0, 3.0])
def test_the_closed_form_is_that_of_the_covariance(spread: float) -> None:
    """Independent normal data of known variances, many more dimensions than pictures."""
    generator = torch.Generator().manual_seed(0)
    scale = spread * torch.linspace(0.5, 1.5, 400)
    latents = (torch.randn(60, 400, generator=generator) * scale).view(60, 4, 10, 10)
    variance = scale.double().square()
    weight = (1 + variance).sum() / (1 + variance).square().sum()
    assert predicted_peak(latents) == pytest.approx(1 - float(weight), abs=0.02)


def test_small_data_peak_near_the_picture_and_unit_data_in_the_middle() -> None:
    generator = torch.Generator().manual_seed(0)
    unit = torch.randn(100, 4, 8, 8, generator=generator)
    assert predicted_peak(unit / 100) == pytest.approx(0, abs=0.01)
    assert predicted_peak(unit) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="2 latents were given; a covariance needs three"):
        predicted_peak(unit[:2])


def test_shares_are_those_of_a_straight_path() -> None:
    s = torch.tensor([0.1, 0.5, 0.9])
    assert shares_of(1 - s, s) == pytest.approx(s.tolist())
