"""The contrastive term against its formula: python -m pytest tests/losses"""

import math

import pytest
import torch

from shortcut_lightning.losses import contrast_loss
from shortcut_lightning.losses.contrast import denoising_errors


def test_it_is_the_cross_entropy_of_a_classifier_by_errors() -> None:
    right, wrong, margin = [0.10, 0.30, 0.20], [0.15, 0.10, 0.20], 0.02
    entropies = []
    for r, w in zip(right, wrong, strict=True):
        likelihood = math.exp(-r / margin) / (math.exp(-r / margin) + math.exp(-w / margin))
        entropies.append(-margin * math.log(likelihood))
    got = contrast_loss(torch.tensor(right), torch.tensor(wrong), margin)
    assert got.item() == pytest.approx(sum(entropies) / 3, rel=1e-5)


def test_its_pull_ends_where_the_right_words_are_better_by_far() -> None:
    right = torch.tensor([0.0, 1.0], requires_grad=True)
    contrast_loss(right, torch.tensor([1.0, 0.0]), 0.01).backward()
    assert right.grad is not None
    assert right.grad.tolist() == pytest.approx([0.0, 0.5])  # a mean over two


def test_errors_are_means_over_an_example() -> None:
    prediction = torch.zeros(2, 4, 8, 8)
    target = torch.stack([torch.ones(4, 8, 8), torch.full((4, 8, 8), 3.0)])
    assert denoising_errors(prediction, target).tolist() == [1.0, 9.0]
