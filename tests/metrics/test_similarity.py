"""CLIP alignment and identity match. Run: pytest tests/metrics/test_similarity.py"""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from shortcut_lightning.metrics import (
    identity_match,
    image_image_similarity,
    image_text_similarity,
)
from shortcut_lightning.metrics.clip_alignment import without_words


def test_identical_images_are_as_similar_as_can_be() -> None:
    one = torch.rand(1, 8).expand(5, 8)
    assert image_image_similarity(one, one * 3).value == pytest.approx(1, abs=1e-6)
    assert identity_match(one, one * 3).value == pytest.approx(1, abs=1e-6)


def test_opposite_images_are_not_clamped() -> None:
    one = torch.rand(4, 8)
    assert image_text_similarity(one, -one).value == pytest.approx(-1, abs=1e-6)


def test_similarities_are_the_naive_loops() -> None:
    images, texts, references = torch.randn(6, 8), torch.randn(6, 8), torch.randn(4, 8)
    pairs = [float(cosine_similarity(i, t, dim=0)) for i, t in zip(images, texts, strict=True)]
    assert image_text_similarity(images, texts).value == pytest.approx(sum(pairs) / 6, abs=1e-6)
    crossed = [float(cosine_similarity(i, r, dim=0)) for i in images for r in references]
    assert image_image_similarity(images, references).value == pytest.approx(
        sum(crossed) / 24, abs=1e-6
    )


def test_identity_compares_with_the_mean_direction_of_the_references() -> None:
    images, references = torch.randn(6, 8), torch.randn(4, 8)
    direction = sum(r / r.norm() for r in references)
    cosines = [float(cosine_similarity(i, direction, dim=0)) for i in images]
    assert identity_match(images, references).value == pytest.approx(sum(cosines) / 6, abs=1e-6)
    assert identity_match(images, references).n == 6


def test_each_image_needs_its_prompt() -> None:
    with pytest.raises(ValueError, match="3 images but 2 prompts"):
        image_text_similarity(torch.rand(3, 4), torch.rand(2, 4))


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("a photo of sks person", "a photo of person"),
        ("sks, on the beach", ", on the beach"),
        ("a photo of a person sks.", "a photo of a person."),
        ("asks for sksx", "asks for sksx"),
        ("two <new> dogs", "two dogs"),
        ("Sks at night", "at night"),
    ],
)
def test_made_up_words_are_taken_out_whole(prompt: str, left: str) -> None:
    assert without_words(prompt, ["sks", "<new>"]) == left
