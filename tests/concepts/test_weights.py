"""Loss weights: python -m pytest tests/concepts/test_weights.py"""

import math

import pytest
import torch

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts import Erasing, Grid
from shortcut_lightning.concepts.geometry import mirrored
from shortcut_lightning.concepts.weights import bin_weights, latent_weights


def covered(count: int, side: int = 4) -> torch.Tensor:
    chosen = torch.randperm(side**2, generator=torch.Generator().manual_seed(count))[:count]
    mask = torch.zeros(side**2, dtype=torch.bool)
    mask[chosen] = True
    return mask.view(1, side, side)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0, 10.0, math.inf])
def test_weights_sum_to_the_number_of_bins_for_every_cover(alpha: float) -> None:
    for count in range(17):
        weights = bin_weights(covered(count), alpha)
        assert weights.sum() == pytest.approx(16, rel=1e-6)
        assert (weights >= 0).all()


@pytest.mark.parametrize(
    ("alpha", "inside", "outside"),
    [(2, 0.571, 1.143), (5, 0.25, 1.25), (10, 0.129, 1.290), (math.inf, 0, 4 / 3)],
)
def test_a_quarter_covered(alpha: float, inside: float, outside: float) -> None:
    mask = covered(4)
    weights = bin_weights(mask, alpha)
    assert weights[mask].tolist() == pytest.approx([inside] * 4, abs=6e-4)
    assert weights[~mask].tolist() == pytest.approx([outside] * 12, abs=6e-4)


def test_nothing_everything_and_alpha_one_weigh_one() -> None:
    for alpha in (0.5, 5.0, math.inf):
        for count in (0, 16):
            assert torch.equal(bin_weights(covered(count), alpha), torch.ones(1, 4, 4))
    for count in range(17):
        torch.testing.assert_close(bin_weights(covered(count), 1.0), torch.ones(1, 4, 4))


@pytest.mark.parametrize(("grid", "side"), [(4, 8), (8, 64), (6, 16), (8, 4), (5, 16), (8, 16)])
def test_the_mean_on_the_latent_grid_is_one(grid: int, side: int) -> None:
    for alpha in (2.0, 5.0, math.inf):
        weights = latent_weights(range(grid), grid, alpha, side, side)
        assert weights.shape == (1, side, side)
        assert weights.mean() == pytest.approx(1, abs=1e-6)


def test_a_bin_becomes_its_block_of_cells() -> None:
    weights = latent_weights([5], 4, math.inf, 8, 8)
    zero = (weights[0] == 0).nonzero().tolist()
    assert zero == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_box_to_bins_to_weights_round_trip() -> None:
    """The weight map drops exactly where the box's bins lie, and flips with the box."""
    erasing, grid = Erasing(alpha=5.0), Grid(8)
    for number in range(64):
        box = [ConceptBox("a", 1.0, grid.box(number))]
        weights = erasing.loss_weights(box, 16, 16)
        low = (weights < 1).view(8, 2, 8, 2).all(dim=3).all(dim=1).flatten().nonzero().tolist()
        assert low == [[number]]
        assert torch.equal(erasing.loss_weights(mirrored(box), 16, 16), weights.flip(-1))
    assert torch.equal(erasing.loss_weights([], 16, 16), torch.ones(1, 16, 16))
    unplaced = [ConceptBox("a", 1.0, None)]
    assert torch.equal(erasing.loss_weights(unplaced, 16, 16), torch.ones(1, 16, 16))


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"Erasing\.alpha is .*; it must be above 0 or \.inf"):
        Erasing(alpha=alpha)


def test_alpha_below_one_warns() -> None:
    with pytest.warns(UserWarning, match="the concept counts more"):
        Erasing(alpha=0.5)
