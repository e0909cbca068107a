"""Sizes of about equal area, and the row of batches from them: python -m pytest tests/data"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fake_model import FakeModule
from PIL import Image

from shortcut_lightning.attacks import RandomNoise
from shortcut_lightning.concepts import Erasing, PrecomputedBoxes
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data import buckets as module
from shortcut_lightning.data.bucket_order import BucketOrder
from shortcut_lightning.data.buckets import Bucket, buckets, class_sizes, fitted, nearest
from shortcut_lightning.data.class_images import class_image_paths
from shortcut_lightning.data.loading import preparation
from shortcut_lightning.data.settings import Passes, Sampled
from shortcut_lightning.files.images import upright_size


def naive(side: int, step: int, ratio: float) -> set[Bucket]:
    """The largest size of each shorter side, and the same lying."""
    found = set()
    for low in range(step, side + 1, step):
        high = max(h for h in range(step, side * side, step) if h * low <= side * side)
        if high / low <= ratio:
            found |= {Bucket(high, low), Bucket(low, high)}
    return found


@pytest.mark.parametrize(("side", "step", "ratio"), [(64, 8, 2), (512, 64, 4), (1024, 64, 2)])
def test_sizes_are_all_that_fit_into_the_area(side: int, step: int, ratio: float) -> None:
    sizes = buckets(side, step, ratio)
    assert set(sizes) == naive(side, step, ratio)
    assert sizes[0] == (side, side)
    assert all(size.height * size.width <= side**2 for size in sizes)
    bounded = buckets(side, step, ratio, longest=side)
    assert bounded == [(side, side)]


def test_a_picture_goes_to_the_size_that_is_most_like_it() -> None:
    sizes = buckets(64, 8, 2)
    for height, width in [(64, 64), (6000, 4000), (4000, 6000), (50, 60), (10, 900)]:
        found = nearest(sizes, height, width)
        difference = [abs(math.log(h / w * width / height)) for h, w in sizes]
        assert found == sizes[difference.index(min(difference))]


def test_a_square_bucket_prepares_as_squares_are_prepared() -> None:
    for height, width in [(64, 64), (90, 64), (64, 97), (33, 40), (200, 301)]:
        image = torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(0))
        assert torch.equal(
            fitted(image / 255, Bucket(64, 64)), preparation(64, crop=True)(image / 255)
        )
        assert fitted(image / 255, Bucket(56, 72)).shape == (3, 56, 72)


def test_a_side_that_is_no_multiple_is_named() -> None:
    with pytest.raises(ValueError, match=r"data\.resolution is 520; in buckets .* multiple of 64"):
        buckets(520, 64, 2)


@pytest.mark.parametrize("names", ["aabac", "abcabc", "aaaa"])
def test_batches_are_of_one_bucket_and_all_pictures_come_alike(names: str) -> None:
    order = BucketOrder(list(names), batch=3, seed=5)
    for cycle in range(3):
        seen: Counter[tuple[int, int]] = Counter()
        for batch in range(cycle * len(names), (cycle + 1) * len(names)):
            places = [order(3 * batch + i) for i in range(3)]
            assert len({bucket for bucket, _ in places}) == 1
            seen.update(places)
        assert max(seen.values()) == 1  # no place of a bucket's stream twice
        for bucket, members in enumerate(order.members):
            count = 3 * len(members)
            expected = set(range(cycle * count, (cycle + 1) * count))
            assert {place for each, place in seen if each == bucket} == expected


def test_one_bucket_is_the_stream_as_it_was() -> None:
    order = BucketOrder("aaa", batch=4, seed=1)
    assert [order(position) for position in range(40)] == [(0, p) for p in range(40)]


def test_each_bucket_has_its_share_of_class_images() -> None:
    a, b, c = Bucket(8, 8), Bucket(8, 16), Bucket(16, 8)
    made = class_sizes([a, a, a, b], 8, given=[])
    assert Counter(made) == {a: 6, b: 2}
    assert Counter(class_sizes([a, a, a, b], 8, given=[a] * 8)) == {b: 2}
    with pytest.raises(ValueError, match=r"num_class_images is 2, but .* in 3 buckets"):
        class_sizes([a, b, c], 2, given=[])


def test_pictures_in_the_folder_of_class_images_count_for_their_bucket(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (30, 60)).save(tmp_path / "mine.jpg", exif=exif)
    assert upright_size(tmp_path / "mine.jpg") == (30, 60)
    wide, high = Bucket(8, 16), Bucket(16, 8)
    paths = class_image_paths(tmp_path, 4, [wide, high])
    assert [path.name for path in paths] == [
        "mine.jpg",
        "class-00000-8x16.png",
        "class-00001-16x8.png",
        "class-00002-8x16.png",
    ]
    assert module.size_of(torch.zeros(3, 8, 16)) == wide


def photographs(folder: Path) -> Path:
    """Four squares and lying ones, of 16 x 16 and 64 x 16 pixels of four colours."""
    folder.mkdir()
    for number, size in enumerate([(16, 16), (64, 16), (16, 16), (64, 16), (64, 16)]):
        Image.new("RGB", size, (40 * number, 255 - 40 * number, 0)).save(folder / f"{number}.png")
    return folder


def fit(tmp_path: Path, **options: Any) -> Any:
    from test_datamodule import fit

    settings = {"bucketing": True, "training": Passes(bucket_ratio=4.0), "steps": 6} | options
    if not (tmp_path / "photos").is_dir():
        photographs(tmp_path / "photos")
    return fit(tmp_path / "photos", tmp_path, **settings)


@pytest.mark.filterwarnings("ignore")
def test_all_that_is_trained_with_is_of_the_bucket(tmp_path: Path) -> None:
    (tmp_path / "boxes.jsonl").write_text(
        '{"file_name": "1.png", "boxes": [{"label": "mark", "score": 1, "xyxy": [0, 0, 0.5, 1]}]}'
    )
    options = {
        "class_prompt": "a photo of a dog",
        "with_prior_preservation": True,
        "num_class_images": 5,
        "training": Passes(bucket_ratio=4.0, random_flip=True),
        "detector": PrecomputedBoxes(str(tmp_path / "boxes.jsonl")),
        "erasing": Erasing(caption="name", grid_size=2, alpha=4.0),
        "evaluation": Sampled(images_per_prompt=2),
    }
    data, module, trainer = fit(tmp_path, **options)
    assert data.buckets == {(8, 32): 3, (16, 16): 2}
    shapes = {batch.images.shape for batch in module.seen}
    assert shapes == {torch.Size([4, 3, 8, 32]), torch.Size([4, 3, 16, 16])}
    for batch in module.seen:
        assert batch.loss_weights is not None
        assert batch.loss_weights.shape[-2:] == tuple(s // 8 for s in batch.images.shape[-2:])
        for weights, prompt in zip(batch.loss_weights, batch.prompts, strict=True):
            assert ("mark" in prompt) == (weights.max() > weights.min())
    made = Counter(each.image.shape[-2:] for each in data.class_images)
    assert made == {(16, 16): 2, (8, 32): 3}
    trainer.test(module, data, verbose=False)
    assert {batch.size for batch in module.asked} == {(8, 32)}
    validated = {tuple(batch.images.shape[-2:]) for batch in data.val_dataloader()}
    assert validated == {(16, 16), (8, 32)}
    assert {example.image.shape for example in data.references} == {torch.Size([3, 16, 16])}


@pytest.mark.filterwarnings("ignore")
def test_validation_draws_by_the_picture_whatever_the_batch(tmp_path: Path) -> None:
    """Neighbours of a bucket are not neighbours of the folder: 0 and 2 are square."""
    for size in (1, 2, 8):
        data, _, _ = fit(tmp_path, evaluation=Sampled(batch_size=size))
        for batch in data.val_dataloader():
            for image, draw in zip(batch.images, batch.draws.tolist(), strict=True):
                assert torch.equal(image, data.validated[-1 - draw].image)


@pytest.mark.filterwarnings("ignore")
def test_cached_latents_are_of_the_bucket(tmp_path: Path) -> None:
    _, module, _ = fit(tmp_path, cache_latents=True)
    assert {batch.moments.shape[-2:] for batch in module.seen} == {(2, 2), (1, 4)}


@pytest.mark.filterwarnings("ignore")
def test_squares_in_buckets_are_trained_on_as_without(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (20, 20), (80 * number, 9, 0)).save(folder / f"{number}.png")
    seen = [fit(tmp_path, bucketing=on)[1].seen for on in (False, True)]
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.draws, other.draws)


def test_a_crop_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no crop to draw: set data\.training\.center_crop"):
        fit(tmp_path, training=Passes(center_crop=False))


@pytest.mark.filterwarnings("ignore")
def test_class_pictures_between_two_buckets_stay_where_they_are_counted(tmp_path: Path) -> None:
    for folder, sizes in {"photos": [(64, 16), *[(16, 64)] * 3], "mine": [(16, 16)] * 8}.items():
        (tmp_path / folder).mkdir()
        for number, size in enumerate(sizes):
            Image.new("RGB", size, (20 * number, 9, 0)).save(tmp_path / folder / f"{number}.png")
    options = {"class_prompt": "a photo of a dog", "with_prior_preservation": True}
    data, module, _ = fit(
        tmp_path, num_class_images=8, class_data_dir=str(tmp_path / "mine"), **options
    )
    made = Counter(each.image.shape[-2:] for each in data.class_images)
    assert made == {(8, 32): 8, (32, 8): 6}
    assert {batch.images.shape[-2:] for batch in module.seen} == {(8, 32), (32, 8)}
    assert all(batch.is_prior.sum() == len(batch.prompts) // 2 for batch in module.seen)


def test_predict_samples_at_the_size_that_test_does(tmp_path: Path) -> None:
    mark = {"label": "mark", "score": 1}
    (tmp_path / "boxes.jsonl").write_text(
        "\n".join(
            json.dumps({"file_name": f"{number}.png", "boxes": [{"xyxy": None} | mark]})
            for number in (1, 3, 4)
        )
    )
    photographs(tmp_path / "photos")
    options = {
        "bucketing": True,
        "training": Passes(bucket_ratio=4.0),
        "evaluation": Sampled(predict_prompts=["a"], images_per_prompt=1),
        "cache_dir": str(tmp_path / "cache"),
        "attack": RandomNoise(),
    }
    dropped = {
        "detector": PrecomputedBoxes(str(tmp_path / "boxes.jsonl")),
        "erasing": Erasing(contaminated="drop"),
    }
    for more, size in (({}, (8, 32)), (dropped, (16, 16))):
        data = PersonalizationDataModule(
            str(tmp_path / "photos"), "a photo of sks dog", **options | more
        )
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        trainer.predict(FakeModule(), data)
        assert [batch.size for batch in data.predict_dataloader()] == [size]
        assert bool(data.perturbed) == bool(more)  # no stage is run where none is asked
