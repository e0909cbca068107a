"""Photographs learnt in several copies: python -m pytest tests/data/test_further_copies.py"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from test_datamodule import PROMPT, Shift, add_images, fit

from shortcut_lightning.concepts import Erasing
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.agreement import agreement_weights
from shortcut_lightning.data.settings import Copy, Passes
from shortcut_lightning.prompts import Decoupling
from shortcut_lightning.purifiers import Gaussian, Jpeg

NOISY = f"{PROMPT}, bhj noisy pattern"
ONLY_UNCLEANED = Decoupling(training=True, purified_too=False)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return add_images(tmp_path / "photos")


def learnt(module: Any) -> Counter[tuple[bytes, str]]:
    """What a run has seen: pixels and prompt."""
    return Counter(
        (image.numpy().tobytes(), prompt)
        for batch in module.seen
        for image, prompt in zip(batch.images, batch.prompts, strict=True)
    )


def test_each_copy_is_cleaned_in_its_own_way_and_learnt_as_often(
    photos: Path, tmp_path: Path
) -> None:
    wanted = {
        "attack": Shift(),
        "purifiers": [Gaussian(0.8)],
        "training": Passes(copies=[Copy([Jpeg(50)]), Copy()]),
    }
    data, module, _ = fit(photos, tmp_path, steps=3, train_batch_size=3, **wanted)
    alone, _, _ = fit(photos, tmp_path, attack=Shift(), purifiers=[Jpeg(50)])
    assert [each.name for each in data.copies] == ["0.png", "1.png", "2.png"] * 2
    for copies, expected in (
        (data.copies[:3], alone.trained_on),
        (data.copies[3:], data.published),
    ):
        assert all(map(torch.equal, *([e.image for e in some] for some in (copies, expected))))
    pixels = [e.image.numpy().tobytes() for e in data.trained_on + data.copies]
    assert learnt(module) == Counter((each, PROMPT) for each in pixels)

    cached, other, _ = fit(photos, tmp_path, 3, train_batch_size=3, cache_latents=True, **wanted)
    assert len(cached._moments) == 9
    assert [batch.draws.tolist() for batch in other.seen] == [b.draws.tolist() for b in module.seen]


@pytest.mark.parametrize("shuffled", [False, True])
def test_noise_words_are_left_to_copies_that_nothing_has_cleaned(
    photos: Path, tmp_path: Path, shuffled: bool
) -> None:
    from shortcut_lightning.captions import Captions

    data, module, _ = fit(
        photos,
        tmp_path,
        purifiers=[Gaussian(0.8)],
        training=Passes(copies=[Copy(), Copy([Jpeg(50)])]),
        decoupling=ONLY_UNCLEANED,
        with_prior_preservation=True,
        class_prompt="a photo of dog",
        num_class_images=2,
        train_batch_size=9,
        captions=Captions(shuffle=shuffled),
    )
    cleaned = {e.image.numpy().tobytes(): PROMPT for e in data.trained_on + data.copies[3:]}
    words = cleaned | {e.image.numpy().tobytes(): NOISY for e in data.copies[:3]}
    batch = module.seen[0]
    said = {
        image.numpy().tobytes(): prompt
        for image, prompt in zip(batch.images[:9], batch.prompts[:9], strict=True)
    }
    assert said == words
    assert set(batch.prompts[9:]) == {"a photo of dog, without bhj noisy pattern"}


def test_places_count_by_how_much_copies_agree(photos: Path, tmp_path: Path) -> None:
    passes = Passes(copies=[Copy([Gaussian(2.0)]), Copy()], agreement=16)
    data, module, _ = fit(
        photos,
        tmp_path,
        steps=1,
        train_batch_size=9,
        training=passes,
        with_prior_preservation=True,
        class_prompt="a photo of dog",
        num_class_images=2,
    )
    batch = module.seen[0]
    assert batch.loss_weights.shape == (18, 1, 2, 2)
    assert torch.equal(batch.loss_weights[9:], torch.ones(9, 1, 2, 2))
    torch.testing.assert_close(batch.loss_weights.mean((1, 2, 3)), torch.ones(18))
    copies = [data.trained_on, data.copies[:3], data.copies[3:]]
    for image, weights in zip(batch.images[:9], batch.loss_weights[:9], strict=True):
        place = next(
            i for some in copies for i, each in enumerate(some) if torch.equal(each.image, image)
        )
        own = agreement_weights([some[place].image for some in copies], 16, 8)
        assert torch.equal(weights, own)


def test_weights_are_the_mean_difference_through_a_bell() -> None:
    first = torch.zeros(3, 16, 16)
    second = first.clone()
    second[:, :8, :8] = 16 / 255  # in the first place
    second[0, 8:, 8:] = 24 / 255  # in the last, in one colour of three
    weights = agreement_weights([first, second, first], 16, 8)
    bell = torch.tensor([[[1.0, 0.0], [0.0, 0.25]]]).neg().exp()
    torch.testing.assert_close(weights, bell / bell.mean())
    assert agreement_weights([first, first + 1], 16, 8).tolist() == [[[1, 1], [1, 1]]]


def test_a_picture_is_repeated_in_all_of_its_copies(photos: Path, tmp_path: Path) -> None:
    passes = Passes(copies=[Copy([Jpeg(50)])], picture_repeats={"0.png": 2})
    data, module, _ = fit(photos, tmp_path, steps=1, train_batch_size=8, training=passes)
    first = {e.image.numpy().tobytes() for e in data.trained_on + data.copies if e.name == "0.png"}
    counts = learnt(module)
    assert {image: n for (image, _), n in counts.items() if image in first} == dict.fromkeys(
        first, 2
    )
    assert sum(counts.values()) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"training": Passes(copies=[Copy()]), "erasing": Erasing(caption="name")},
            r"data\.training\.copies and data\.erasing do not go together",
        ),
        ({"training": Passes(agreement=16)}, r"give data\.training\.copies, or set it to 0"),
        (
            {"training": Passes(copies=[Copy()], agreement=16, random_flip=True)},
            r"set data\.training\.random_flip to false",
        ),
        (
            {"decoupling": ONLY_UNCLEANED, "erasing": Erasing(caption="name")},
            r"data\.decoupling\.purified_too false and data\.erasing",
        ),
    ],
)
def test_what_does_not_go_with_copies_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PersonalizationDataModule("photos", PROMPT, **options)


def test_a_contrast_wants_words_about_every_photograph() -> None:
    with pytest.raises(ValueError, match=r"data\.decoupling\.contrast wants words about every"):
        Decoupling(training=True, contrast=1.0, purified_too=False)


def test_words_about_nothing_are_named(caplog: pytest.LogCaptureFixture) -> None:
    PersonalizationDataModule("photos", PROMPT, purifiers=[Jpeg()], decoupling=ONLY_UNCLEANED)
    assert "the noise words are about none of them" in caplog.text
    caplog.clear()
    PersonalizationDataModule(
        "photos",
        PROMPT,
        purifiers=[Jpeg()],
        decoupling=ONLY_UNCLEANED,
        training=Passes(copies=[Copy()]),
    )
    assert "none of them" not in caplog.text
