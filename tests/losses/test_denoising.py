"""The objective against its formula: python -m pytest tests/losses."""

import pytest
import torch

from shortcut_lightning.losses import DreamBoothLoss

ERRORS = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1).expand(4, 4, 8, 8)
ZERO = torch.zeros(4, 4, 8, 8)
IS_PRIOR = torch.tensor([False, False, True, True])


def test_instance_plus_weighted_prior() -> None:
    losses = DreamBoothLoss(0.5)(ERRORS.sqrt(), ZERO, torch.ones(4), IS_PRIOR)
    assert losses["loss_instance"].item() == pytest.approx(1.5)
    assert losses["loss_prior"].item() == pytest.approx(3.5)
    assert losses["loss"].item() == pytest.approx(1.5 + 0.5 * 3.5)


def test_without_class_images_there_is_no_prior_term() -> None:
    losses = DreamBoothLoss()(ERRORS, ZERO, torch.ones(4), torch.zeros(4, dtype=bool))
    assert set(losses) == {"loss", "loss_instance"}


def test_weights_of_one_change_nothing_and_weights_move_the_loss() -> None:
    loss = DreamBoothLoss()
    prediction, nobody = torch.randn(4, 4, 8, 8), torch.zeros(4, dtype=bool)
    plain = loss(prediction, ZERO, torch.ones(4), nobody)["loss"]
    ones = torch.ones(4, 1, 8, 8)
    torch.testing.assert_close(loss(prediction, ZERO, torch.ones(4), nobody, ones)["loss"], plain)
    left = ones.clone()
    left[..., 4:] = 0
    left *= 2
    expected = (prediction[..., :4] ** 2).mean()
    torch.testing.assert_close(
        loss(prediction, ZERO, torch.ones(4), nobody, left)["loss"], expected
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_by_the_paper(prediction_type: str) -> None:
    snr = torch.tensor([0.01, 1.0, 5.0, 400.0])
    weights = DreamBoothLoss(
        snr_gamma=5, snr_offset=float(prediction_type != "epsilon")
    ).snr_weights(snr)
    for value, weight in zip(snr.tolist(), weights.tolist(), strict=True):
        divisor = value if prediction_type == "epsilon" else value + 1
        assert weight == pytest.approx(min(value, 5.0) / divisor)
