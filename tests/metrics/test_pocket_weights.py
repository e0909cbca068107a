"""The shipped encoders tell what they are for. Run: pytest tests/metrics/test_pocket_weights.py"""

import pytest
import torch
from torch import Tensor

from shortcut_lightning import metrics
from shortcut_lightning.metrics.encoders import image_features, text_features
from shortcut_lightning.pocket import WEIGHTS, world

CPU = torch.device("cpu")
PEOPLE, VIEWS = 6, 5


@pytest.fixture(scope="module")
def album() -> tuple[Tensor, list[str]]:
    """Five clean pictures of each of six people, person after person, with captions."""
    drawn = [world.draw(4711, i, VIEWS, "clean") for i in range(PEOPLE * VIEWS)]
    images = torch.stack([torch.from_numpy(d.image.copy()).permute(2, 0, 1) for d in drawn])
    return images.float() / 255, [d.caption for d in drawn]


def shipped(name: str) -> pytest.MarkDecorator:
    missing = not (WEIGHTS / name / "model.safetensors").exists()
    return pytest.mark.skipif(missing, reason=f"no weights of {name} yet")


@shipped("identity")
def test_identity_tells_people_apart(album: tuple[Tensor, list[str]]) -> None:
    people = image_features(metrics.PocketIdentity(), album[0], CPU).split(VIEWS)
    for number, references in enumerate(people):
        own = metrics.identity_match(references[:2], references[2:])
        others = torch.cat([views for other, views in enumerate(people) if other != number])
        assert own.low > metrics.identity_match(others, references[2:]).high


@shipped("attributes")
def test_noise_is_far_from_pictures(album: tuple[Tensor, list[str]]) -> None:
    images = album[0]
    noisy = (images + 0.3 * torch.randn(images.shape)).clamp(0, 1)
    encoder = metrics.PocketAttributes()
    clean, other, spoilt = (
        image_features(encoder, part, CPU) for part in (images[::2], images[1::2], noisy[::2])
    )
    near = metrics.kernel_distance(clean, other).value
    assert metrics.kernel_distance(spoilt, other).low > near


@shipped("clip")
def test_clip_prefers_a_picture_s_own_caption(album: tuple[Tensor, list[str]]) -> None:
    encoder = metrics.PocketClip()
    images = image_features(encoder, album[0], CPU)
    texts = text_features(encoder, album[1], CPU)
    own = metrics.image_text_similarity(images, texts)
    assert own.low > metrics.image_text_similarity(images, texts.roll(VIEWS, dims=0)).high
