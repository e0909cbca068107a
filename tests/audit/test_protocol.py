"""Splits, copies, blind baselines, dataset test: pytest tests/audit/test_protocol.py"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from shortcut_lightning.audit import collection
from shortcut_lightning.audit.blind import bag_of_words, blind_baselines, cross_validated, judged
from shortcut_lightning.audit.collection import drawn as drawn_pictures
from shortcut_lightning.audit.collection import make_collection
from shortcut_lightning.audit.dataset_inference import dataset_test, logistic
from shortcut_lightning.audit.duplicates import find_copies, first_of_each, signature
from shortcut_lightning.audit.near_hashes import close_pairs, packed, surely_found
from shortcut_lightning.audit.splits import PARTS, require_disjoint, split
from shortcut_lightning.membership.pictures import Picture, picture, read_pictures
from shortcut_lightning.membership.roc import null_error
from shortcut_lightning.pocket import world


def drawn(index: int) -> Tensor:
    """A picture of the procedural world."""
    return torch.from_numpy(world.draw(5, index).image).permute(2, 0, 1).float() / 255


def portraits(count: int, start: int = 0) -> list[Picture]:
    found = [world.draw(5, i) for i in range(start, start + count)]
    return [
        picture(f"{i}.png", d.caption, torch.from_numpy(d.image).permute(2, 0, 1) / 255, 64)
        for i, d in enumerate(found, start)
    ]


@pytest.fixture(scope="module")
def album() -> list[Picture]:
    return portraits(48)


def test_different_pictures_are_no_copies(album: list[Picture]) -> None:
    signatures = [signature(each.pixels()) for each in album]
    assert first_of_each(signatures) == list(range(48))


@pytest.mark.parametrize("change", ["mirror", "brightness", "noise", "jpeg", "crop"])
def test_a_changed_picture_is_a_copy(change: str, tmp_path: Path) -> None:
    image = drawn(3)
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    if change == "jpeg":
        pixels = (image * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=60)
        changed = picture("a.jpg", "", tmp_path / "a.jpg", 64).pixels()
    else:
        crop = torch.nn.functional.interpolate(image[None, :, 1:-1, 1:-1], 64, mode="bilinear")
        changed = {
            "mirror": image.flip(-1),
            "brightness": (image * 0.85 + 0.05),
            "noise": (image + noise).clamp(0, 1),
            "crop": crop[0],
        }[change]
    others = [signature(drawn(i)) for i in range(20, 26)]
    found = find_copies([signature(changed)], [*others, signature(image)])
    assert [(each.first, each.second) for each in found] == [(0, 6)]


def test_copies_among_very_many_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables find what comparing all with all finds, up to the bits that they promise."""
    rng = np.random.default_rng(0)
    first, second = (packed(rng.normal(size=(400, 63))) for _ in range(2))
    for place in range(120):  # of 0 to 11 bits
        flipped = rng.permutation(63)[: place % 12].astype(np.int64)
        second[place] = first[place] ^ np.bitwise_or.reduce(np.left_shift(np.int64(1), flipped))
    naive = [
        (i, j) for i in range(400) for j in range(400) if (first[i] ^ second[j]).bit_count() <= 10
    ]
    assert len(naive) >= 110
    found = list(zip(*(each.tolist() for each in close_pairs(first, second, 10)), strict=True))
    assert found == sorted(set(found) & set(naive))
    missed = set(naive) - set(found)
    assert all((first[i] ^ second[j]).bit_count() > surely_found(400) == 6 for i, j in missed)
    assert len(missed) < 30

    monkeypatch.setattr("shortcut_lightning.audit.duplicates.ALL_WITH_ALL", 0)
    images = [drawn(i) for i in range(4)]
    others = [signature(images[2].flip(-1) * 0.9), signature(drawn(9)), signature(images[0])]
    found = find_copies([signature(image) for image in images], others)
    assert [(each.first, each.second) for each in found] == [(0, 2), (2, 0)]


@pytest.mark.parametrize("shadow", ["same", "disjoint"])
def test_splits_have_exact_sizes_and_are_disjoint(album: list[Picture], shadow: str) -> None:
    parts = split(album, 7, 9, seed=3, shadow=shadow)  # type: ignore[arg-type]
    names = {part: {p.name for p in getattr(parts, part)} for part in PARTS}
    assert [len(names[part]) for part in PARTS] == [7, 9, 7, 9]
    assert not names["members"] & names["nonmembers"]
    assert not names["shadow_members"] & names["shadow_nonmembers"]
    target = names["members"] | names["nonmembers"]
    shadowed = names["shadow_members"] | names["shadow_nonmembers"]
    assert (target == shadowed) if shadow == "same" else not target & shadowed
    assert names["shadow_members"] != names["members"]
    again = split(album, 7, 9, seed=3, shadow=shadow)  # type: ignore[arg-type]
    assert [p.name for p in again.members] == [p.name for p in parts.members]
    other = split(album, 7, 9, seed=4, shadow=shadow)  # type: ignore[arg-type]
    assert [p.name for p in other.members] != [p.name for p in parts.members]


def test_copies_are_left_out_of_splits(album: list[Picture]) -> None:
    twin = picture("twin.png", "x", album[0].pixels().flip(-1), 64)
    parts = split([*album[:8], twin], 2, 2, shadow="disjoint")
    assert parts.copies == ["twin.png"]
    with pytest.raises(ValueError, match="need 10 different images; there are 8"):
        split([*album[:8], twin], 3, 2, shadow="disjoint")


def test_a_split_is_written_as_folders_that_fit_reads(album: list[Picture], tmp_path: Path) -> None:
    source = tmp_path / "album"
    split(album[:12], 3, 3).write(source)
    again, complaints = read_pictures(source / "shadow_members", "members", 64)
    assert not complaints
    record = json.loads((source / "split.json").read_text())
    assert [f"{p.key:016x}" for p in again] == sorted(
        (row["key"] for row in record["shadow_members"]),
        key=[f"{p.key:016x}" for p in again].index,
    )
    assert {p.caption for p in again} <= {p.caption for p in album}
    parts = make_collection(str(tmp_path / "b"), str(source / "members"), 1, 1, shadow="same")
    assert len(list((tmp_path / "b" / "members").glob("*.png"))) == len(parts.members) == 1


def test_pictures_of_another_split_are_not_mixed_in(album: list[Picture], tmp_path: Path) -> None:
    split(album[:12], 3, 3, seed=1).write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for other in (split(album[:12], 3, 3, seed=2), split(album[:12], 2, 2, seed=1)):
        with pytest.raises(ValueError, match=r"members already holds \d.*another --output"):
            other.write(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (tmp_path / "members" / "Thumbs.db").touch()
    split(album[:12], 3, 3, seed=1).write(tmp_path)  # one that was cut off is written again


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--source", "none"], "which does not exist"), (["--n_members", "0"], "0 members and 60")],
)
def test_a_mistake_of_a_collection_is_one_line(
    tmp_path: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["collection", "--output", str(tmp_path / "out"), *words])
    monkeypatch.setattr(collection, "drawn", lambda *_: [])
    with pytest.raises(SystemExit, match=rf"^error: .*{said}") as left:
        collection.main()
    assert "\n" not in str(left.value)


def test_a_drawn_collection_has_a_caption_for_every_image() -> None:
    pictures = drawn_pictures(30, world_seed=2)
    assert len({each.key for each in pictures}) == 30
    assert all("person" in each.caption for each in pictures)
    assert drawn_pictures(1, world_seed=3)[0].key != pictures[0].key


def test_an_image_in_both_sets_is_an_error(album: list[Picture]) -> None:
    with pytest.raises(ValueError, match=r"2 images are in both .*: 3\.png = 3\.png; 4\.png"):
        require_disjoint(album[:5], album[3:9], "audit.members and audit.nonmembers")


def test_near_copies_across_sets_are_named(album: list[Picture]) -> None:
    twin = picture("twin.png", "", album[2].pixels() * 0.9, 64)
    sentences = require_disjoint(album[:4], [*album[6:9], twin], "both sets")
    assert len(sentences) == 1
    assert "2.png and twin.png" in sentences[0]


def test_blind_baselines_see_nothing_in_a_random_split(album: list[Picture]) -> None:
    parts = split(album, 24, 24, shadow="same")
    found = {each.name: each for each in blind_baselines(parts.members, parts.nonmembers)}
    assert set(found) == {"captions", "image statistics"}
    assert not any(each.tells for each in found.values())


def test_blind_baselines_see_a_shift(album: list[Picture], tmp_path: Path) -> None:
    pale = [
        Picture(p.name, p.caption + " today", p.key, p.pixels() * 0.8 + 0.2, 64) for p in album[:24]
    ]
    found = {each.name: each for each in blind_baselines(pale, album[24:])}
    assert found["captions"].tells
    assert found["image statistics"].tells
    files = []
    for number, each in enumerate(album[:30]):
        path = tmp_path / f"{number}.{'jpg' if number < 15 else 'png'}"
        pixels = (each.pixels() * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)
        files.append(picture(path.name, "same", path, 64))
    found = {each.name: each for each in blind_baselines(files[:15], files[15:])}
    assert set(found) == {"image statistics", "file metadata"}  # one caption for all says nothing
    assert found["file metadata"].tells


def test_a_baseline_s_error_is_the_spread_of_relabelled_sets() -> None:
    """Which is larger than that of an AUC whose scores do not depend on the other images."""
    features, labels = np.random.default_rng(2).normal(size=(60, 37)), np.repeat([1, 0], 30)
    (found,) = judged([("noise", features)], labels, 0)
    others = [
        cross_validated(features, np.random.default_rng(n).permutation(labels), 7)
        for n in range(40)
    ]
    assert found.error == pytest.approx(np.std(others), rel=0.4)
    assert found.error > null_error(30, 30)


def test_sets_matched_by_caption_do_not_differ() -> None:
    captions = [f"a photo of thing{i} word{i} near place{i % 7}" for i in range(30)]
    words = bag_of_words(captions + captions).toarray()
    (found,) = judged([("captions", words)], np.repeat([1, 0], 30), 0)
    assert found.auc < 0.2  # each was learnt with the label of its twin
    assert not found.tells


def test_cross_validation_is_not_in_sample() -> None:
    """More features than rows fit any labels; on other folds that is worth nothing."""
    rng = np.random.default_rng(0)
    values = [
        cross_validated(rng.normal(size=(40, 200)), np.repeat([1, 0], 20), seed)
        for seed in range(8)
    ]
    assert abs(np.mean(values) - 0.5) < 0.12


def test_logistic_regression_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(50, 7)), rng.integers(0, 2, 50)
    model = LogisticRegression(tol=1e-10, max_iter=1000).fit(features, labels)
    ours = logistic(features, labels.astype(float))
    np.testing.assert_allclose(ours, [*model.coef_[0], model.intercept_[0]], atol=1e-5)
    apart = logistic(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0.0, 0, 1, 1]))
    assert np.isfinite(apart).all()  # separable sets


def test_dataset_test_finds_a_set_where_single_images_are_undecided() -> None:
    rng = np.random.default_rng(0)
    suspects = rng.normal(size=(80, 6)) + 0.5 * np.eye(6)[0]
    unpublished = rng.normal(size=(90, 6))
    found = dataset_test(suspects, unpublished, permutations=99, sizes=(20, 40), draws=5)
    assert found.n == 80
    assert found.p_value <= 0.02
    assert 0.52 < found.auc < 0.75
    assert found.direction_ref > 0
    assert [size for size, _ in found.curve] == [20, 40]
    assert found.p_null > 0.01
    assert len(found.auc_per_fold) == 5


def test_dataset_test_tells_the_direction_and_what_the_base_finds() -> None:
    rng = np.random.default_rng(0)
    plain, other = rng.normal(size=(2, 60, 4))
    shift = np.array([0.8, 0.4, 0.8, 0.4])
    settings = {"permutations": 99, "sizes": ()}
    for sign in (1, -1):
        found = dataset_test(plain + sign * shift, other, **settings)  # type: ignore[arg-type]
        assert found.p_value <= 0.02  # the classifier finds either
        assert found.direction == pytest.approx(0.6 * sign, abs=0.25)
        assert found.p_base is None
        assert ("no sign of membership" in found.sentence) == (sign < 0)
        assert ("No base model was asked" in found.sentence) == (sign > 0)
    blind = dataset_test(plain + shift, other, base=(plain, other), **settings)  # type: ignore[arg-type]
    assert blind.p_base is not None
    assert blind.p_base > 0.05
    assert f"p = {blind.p_base:.3f} on a model that cannot know" in blind.sentence
    assert "may lie in the pictures" not in blind.sentence
    sees = dataset_test(plain + shift, other, base=(plain + shift, other), **settings)  # type: ignore[arg-type]
    assert sees.p_base is not None
    assert sees.p_base <= 0.02
    assert "may lie in the pictures" in sees.sentence
    nothing = dataset_test(plain, other, **settings)  # type: ignore[arg-type]
    assert nothing.sentence.startswith("The collection as a whole is not told from the others")


def test_dataset_test_is_calibrated() -> None:
    """Where there is nothing, p is spread evenly: as often below 0.2 as it says."""
    found = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        both = rng.normal(size=(2, 12, 3))
        result = dataset_test(both[0], both[1], permutations=19, sizes=(), seed=seed)
        found.append(result.p_value)
    assert 1 <= np.sum(np.array(found) <= 0.2) <= 11
    assert np.mean(found) == pytest.approx(0.5, abs=0.2)


def test_dataset_test_refuses_a_handful() -> None:
    with pytest.raises(ValueError, match="needs 10 images of each set; there are 4 suspects"):
        dataset_test(np.zeros((4, 2)), np.zeros((30, 2)))


def test_corrupt_files_are_named_and_left_out(album: list[Picture], tmp_path: Path) -> None:
    split(album[:8], 2, 2).write(tmp_path)
    folder = tmp_path / "members"
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    (folder / "broken.txt").write_text("a photo")
    found, complaints = read_pictures(folder, "members", 64)
    assert len(found) == 2
    assert "broken.png" in complaints[0]
    assert "audit.members" in complaints[0]


def test_missing_captions_are_named(album: list[Picture], tmp_path: Path) -> None:
    split(album[:8], 2, 2).write(tmp_path)
    (tmp_path / "members" / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match=r"2 of 2 images .*audit\.members.*audit\.caption"):
        read_pictures(tmp_path / "members", "members", 64)
    found, _ = read_pictures(tmp_path / "members", "members", 64, caption="a photo")
    assert {each.caption for each in found} == {"a photo"}
