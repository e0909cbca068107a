"""Boxes on their way into a batch: captions, weights, crops, flips, baselines.

python -m pytest tests/data/test_erasing.py
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.captions import Captions
from shortcut_lightning.concepts import Captioner, Erasing, Grid
from shortcut_lightning.concepts.geometry import cropped, mirrored
from shortcut_lightning.data import PersonalizationDataModule, stages, training
from shortcut_lightning.data.checks import check_learnt_words, check_model
from shortcut_lightning.data.erasing import settled
from shortcut_lightning.data.evaluation import prompt_batches
from shortcut_lightning.data.lengths import Room
from shortcut_lightning.data.settings import Sampled
from shortcut_lightning.data.wording import Wording
from shortcut_lightning.files.cache import Cache
from shortcut_lightning.prompts import Prompts
from shortcut_lightning.safe_guidance import SafeGuidance

BOX = ConceptBox("mark", 1.0, (0.0, 0.0, 0.25, 0.25))


def count(text: str) -> int:
    return len(text.replace("<", " <").split()) + (text == "<l16>")  # not a word of 4 x 4 bins


def captioner(**settings: Any) -> Captioner:
    erasing = Erasing(**{"caption": "geometry", "grid_size": 4, **settings})
    return Captioner(erasing, Prompts("a robin"), count, 75)


def marked(height: int = 32, width: int = 32) -> Example:
    """Black, and white where the box is."""
    image = torch.zeros(3, height, width)
    image[:, : height // 4, : width // 4] = 1
    return Example(image, "a robin", "a.png")


def dataset(example: Example, **options: Any) -> training.TrainSet:
    settings = options.pop("settings", {"alpha": 5.0})
    concepts = training.Concepts([[BOX]], captioner(**settings), 8)
    values: dict[str, Any] = {"side": 32, "random_flip": False, "seed": 0, "concepts": concepts}
    return training.TrainSet([example], [], **values | options)


def test_an_image_brings_its_caption_and_weights() -> None:
    batch = training.collate([dataset(marked())[0]])
    assert batch.prompts == ["a robin, mark<l0>"]
    assert batch.loss_weights is not None
    assert batch.loss_weights.shape == (1, 1, 4, 4)
    assert batch.loss_weights.mean() == pytest.approx(1)
    assert (batch.loss_weights < 1).nonzero().tolist() == [[0, 0, 0, 0]]


def test_a_flip_moves_the_words_and_the_weights_with_the_image() -> None:
    data = dataset(marked(), random_flip=True)
    seen = set()
    for position in range(20):
        row = data[position][0]
        flipped = bool(row.image[0, 0, -1] == 1)
        seen.add(flipped)
        assert row.prompt == ("a robin, mark<l3>" if flipped else "a robin, mark<l0>")
        assert bool(row.loss_weights[0, 0, 3] < 1) == flipped
        assert bool(row.loss_weights[0, 0, 0] < 1) != flipped
    assert seen == {True, False}


def test_a_crop_takes_the_words_and_the_weights_along() -> None:
    """Whatever the draw, the words are those of the white pixels that are left."""
    data = dataset(marked(48, 64), random_flip=True)
    prompts = set()
    for position in range(40):
        row = data[position][0]
        cells = row.image[0].view(4, 8, 4, 8).amax(dim=(1, 3)).flatten()
        bins = [n for n, value in enumerate(cells.tolist()) if value > 0]
        few = row.image[0].sum() < 0.1 * 12 * 16
        expected = "a robin" if few else "a robin, mark" + "".join(f"<l{n}>" for n in bins)
        assert row.prompt == expected
        covered = [] if few else bins
        assert (row.loss_weights.flatten() < 1).nonzero().flatten().tolist() == covered
        prompts.add(row.prompt)
    assert len(prompts) > 3


def test_frequencies_are_counted_as_training_shows_the_boxes() -> None:
    """Mirrored as often as not, and in the middle of what crops there may be."""
    square, wide = torch.zeros(3, 32, 32), torch.zeros(3, 32, 48)
    in_the_crop = BOX._replace(xyxy=(8 / 48, 0.0, 16 / 48, 0.25))
    writer = captioner(negative="name+top-k", top_k=2)
    for image, box in ((square, BOX), (wide, in_the_crop)):
        for flip, words in ((False, "<l0>"), (True, "<l0><l3>")):
            shown = training.usual_boxes([box], image, 32, flip)
            assert writer.negative(["mark"], shown) == f"mark{words}"


def test_cached_latents_show_the_whole_image_and_its_boxes() -> None:
    moments = [torch.zeros(2, 4, 4, 4)]
    row = dataset(marked(), moments=moments)[0][0]
    assert row.prompt == "a robin, mark<l0>"
    assert row.moments.shape == (2, 4, 4, 4)


def test_captions_can_be_dropped_while_concepts_stay() -> None:
    data = dataset(marked(), settings={"caption_drop": 0.5})
    prompts = [data[position][0].prompt for position in range(60)]
    assert set(prompts) == {"a robin, mark<l0>", "mark<l0>"}
    assert 15 < prompts.count("mark<l0>") < 45


def test_class_images_are_said_and_weighed_as_ever() -> None:
    concepts = training.Concepts([[BOX]], captioner(alpha=5.0), 8)
    prior = Example(torch.zeros(3, 32, 32), "a bird", "b.png")
    data = training.TrainSet(
        [marked()], [prior], side=32, random_flip=False, seed=0, concepts=concepts
    )
    batch = training.collate([data[0]])
    assert batch.prompts == ["a robin, mark<l0>", "a bird"]
    assert batch.loss_weights is not None
    assert torch.equal(batch.loss_weights[1], torch.ones(1, 4, 4))


def test_even_weights_are_left_out() -> None:
    batch = training.collate([dataset(marked(), settings={})[0]])
    assert batch.loss_weights is None


def test_the_view_agrees_with_the_geometry() -> None:
    window = (0.25, 0.0, 0.75, 1.0)
    both = mirrored(cropped([BOX._replace(xyxy=(0.3, 0.1, 0.6, 0.2))], window))
    assert Grid(4).bins(both) == [1, 2, 3]


def test_the_tuned_arm_has_a_negative_prompt_of_its_own() -> None:
    batches = prompt_batches(
        ["a robin"],
        1,
        Prompts("a robin", negative_prompt="ugly"),
        negatives={"tuned": "mark<l0>, ugly"},
        first_seed=0,
        batch_size=4,
        arms=("tuned", "base"),
    )
    assert [batch.negative_prompts for batch in batches] == [["mark<l0>, ugly"], ["ugly"]]


def test_contaminated_images_are_kept_dropped_or_painted_over() -> None:
    pytest.importorskip("cv2")
    clean = Example(torch.full((3, 32, 32), 0.5), "a robin", "b.png")
    dirty = marked()
    examples, boxes = [dirty, clean], [[BOX], []]
    assert stages.settle_contaminated(examples, boxes, "keep") == (examples, boxes)
    kept, left = stages.settle_contaminated(examples, boxes, "drop")
    assert [example.name for example in kept] == ["b.png"]
    assert left == [[]]
    painted, left = stages.settle_contaminated(examples, boxes, "inpaint")
    assert painted[0].image.max() < 0.05  # black, as around the white square
    assert torch.equal(painted[1].image, clean.image)
    assert left == [[], []]
    with pytest.raises(ValueError, match=r"data\.erasing\.contaminated is 'drop'"):
        stages.settle_contaminated([dirty], [[BOX]], "drop")


def test_found_boxes_are_cached_and_come_back_the_same(tmp_path: Path) -> None:
    from shortcut_lightning.concepts import Detector

    class Counting(Detector):
        calls = 0

        def __init__(self, label: str) -> None:
            self.label = label

        def run(self, images: torch.Tensor, names: Any = ()) -> list[list[ConceptBox]]:
            Counting.calls += 1
            box = ConceptBox(self.label, 0.1 + 0.2, (0.1, 0.2, 1 / 3, 0.7))
            return [[box, ConceptBox(self.label, 1.0, None)] for _ in images]

    cache, device = Cache(tmp_path), torch.device("cpu")
    first = stages.detect([marked()], Counting("a"), cache, device)
    assert stages.detect([marked()], Counting("a"), cache, device) == first
    assert first[0][0] == ConceptBox("a", 0.1 + 0.2, (0.1, 0.2, 1 / 3, 0.7))
    assert first[0][1].xyxy is None
    assert Counting.calls == 1
    assert stages.detect([marked()], Counting("b"), cache, device) != first
    assert stages.detect([marked(40, 40)], Counting("a"), cache, device) == first
    assert Counting.calls == 3


def test_safe_guidance_reaches_the_batches_of_every_arm_with_its_words() -> None:
    safety = SafeGuidance(scale=5.0)
    batches = prompt_batches(
        ["a robin"],
        1,
        Prompts("a robin", negative_prompt="grass"),
        safety=safety,
        first_seed=0,
        batch_size=1,
        arms=("tuned", "base"),
    )
    assert [(batch.arm, batch.negative_prompts, batch.safety) for batch in batches] == [
        ("tuned", ["grass"], safety),
        ("base", ["grass"], safety),
    ]
    assert move_data_to_device(batches[0], torch.device("cpu")).safety == safety


@pytest.mark.parametrize("caption", ["none", "name", "geometry"])
def test_words_that_no_caption_says_are_not_learned(caption: Any) -> None:
    data = PersonalizationDataModule(erasing=Erasing(caption=caption))
    check_learnt_words(data, {"removal": "data"})  # a baseline: nothing but the emptied prompts
    check_learnt_words(data, {})
    if caption == "geometry":
        check_learnt_words(data, {"removal": "model"})
        return
    with pytest.raises(ValueError, match=rf"data\.erasing\.caption is '{caption}': set it to 'geo"):
        check_learnt_words(data, {"removal": "model"})


def test_places_that_leave_no_room_for_the_subject_are_said_to_be_too_many() -> None:
    """A text encoder of twenty tokens, and a concept all over the picture."""
    wording = Wording(Prompts("a sks", "a robin"), Captions(), Room(count, 20), lambda _: None)
    whole = [[BOX._replace(xyxy=(0.0, 0.0, 1.0, 1.0))]]
    example, view = marked()._replace(prompt="a sks"), {"side": 32, "flips": False}
    erasing = Erasing(caption="geometry", grid_size=4)
    assert settled(replace(erasing, max_bins=9), wording, [example], whole, **view).boxes == whole
    few = wording._replace(room=Room(count, 18))
    with pytest.raises(ValueError, match=r"'sks' first, or let .* \(data\.erasing\.max_bins\)\.$"):
        settled(erasing, few, [example], whole, **view)


def test_safe_guidance_needs_words_and_guidance() -> None:
    given = {"instance_data_dir": "pocket:0", "instance_prompt": "a photo of sks man"}
    erasing = Erasing(safety=SafeGuidance())
    with pytest.raises(ValueError, match=r"set data\.erasing\.negative to 'name'"):
        PersonalizationDataModule(**given, erasing=erasing)
    data = PersonalizationDataModule(
        **given, erasing=erasing, evaluation=Sampled(negative_prompt="grass")
    )
    check_model(data, {"guidance_scale": 3.0})
    with pytest.raises(ValueError, match=r"model\.sampling\.guidance_scale is 1"):
        check_model(data, {"guidance_scale": 1.0})
