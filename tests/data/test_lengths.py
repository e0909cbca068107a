"""What a text encoder would cut off is named or refused: python -m pytest tests/data."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fake_model import FakeBackbone
from test_datamodule import add_images, fit

from shortcut_lightning.captions import Captions
from shortcut_lightning.concepts import Erasing
from shortcut_lightning.data.lengths import Room, too_long
from shortcut_lightning.data.settings import Sampled
from shortcut_lightning.prompts import Decoupling, Prompts

LONG = "green grass and a wooden fence in bright morning light "  # 10 words; the fake takes 75
pytestmark = pytest.mark.filterwarnings("ignore")


def captioned(tmp_path: Path, *texts: str) -> Path:
    photos = add_images(tmp_path / "photos", len(texts))
    for number, text in enumerate(texts):
        (photos / f"{number}.txt").write_text(text)
    return photos


def cut(tmp_path: Path, *texts: str, **options: Any) -> list[str]:
    """The sentences about what is cut off in a training with these captions."""
    options = {"class_prompt": "a photo of dog", "use_captions": True} | options
    data, _, _ = fit(captioned(tmp_path, *texts), tmp_path, steps=1, **options)
    return [doubt for doubt in data.warnings if "text encoder's" in doubt]


def test_the_lost_name_of_the_subject_is_refused(tmp_path: Path) -> None:
    said = (
        "'sks', which names the subject, is cut off the prompts of 1 of 2 images, so it would not "
        "be learned: the text encoder takes 75 tokens, and the caption of 1.png has 83."
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        cut(tmp_path, "a photo of sks dog", LONG * 8 + "with sks dog")


def test_what_makes_room_for_noise_words_may_not_take_the_name(tmp_path: Path) -> None:
    words = Decoupling(training=True)
    text = LONG * 7 + "with a sks dog"
    with pytest.raises(ValueError, match=r"'sks', which names .* caption of 0\.png has 74"):
        cut(tmp_path, text, decoupling=words)


@pytest.mark.parametrize("erasing", [Erasing(), Erasing(caption="name", alpha=2.0)])
@pytest.mark.parametrize(
    ("keep", "template", "lost"),
    [
        (1, "{caption}", False),
        (2, "studio light, {caption}", False),
        (1, "studio light, {caption}", True),  # the parts of a template count as kept
        (0, "{caption}", True),
    ],
)
def test_no_order_of_a_caption_may_lose_the_name(
    tmp_path: Path, erasing: Erasing, keep: int, template: str, lost: bool
) -> None:
    captions = Captions(template, shuffle=True, keep_first=keep)
    for name in ("short", "long"):
        (tmp_path / name).mkdir()
    short = "a photo of sks dog, at night, in the rain"  # all of it is seen in any order
    cut(tmp_path / "short", short, captions=captions, erasing=erasing)
    refused = r"'sks' first, where data\.captions\.keep_first leaves it"
    text = "a photo of sks dog, " + (LONG.strip() + ", ") * 7 + "at night"
    with pytest.raises(ValueError, match=refused) if lost else nullcontext():
        cut(tmp_path / "long", text, captions=captions, erasing=erasing)


def test_captions_that_lose_other_words_are_counted_once(tmp_path: Path) -> None:
    (said,) = cut(tmp_path, "sks dog, " + LONG * 8, "a dog", "another " + LONG * 9)
    assert said.startswith("captions (data.use_captions): 2 of 3 do not fit the text encoder's 75")
    assert said.endswith("lose words; for example 'sks dog, green grass and a wooden fence in "
                         "bright morning...' has 82.")  # fmt: skip


def test_other_prompts_are_named_by_their_keys(tmp_path: Path) -> None:
    sentences = cut(
        tmp_path,
        "sks dog",
        class_prompt="a dog, " + LONG * 8,
        with_prior_preservation=True,
        num_class_images=1,
        evaluation=Sampled(
            prompts=["a photo of sks dog", "sks dog, " + LONG * 8], negative_prompt=LONG * 8
        ),
    )
    keys = [sentence.split(":")[0] for sentence in sentences]
    assert keys == [
        "data.class_prompt",
        "data.evaluation.prompts",
        "data.evaluation.negative_prompt",
    ]


def test_nothing_is_said_of_what_fits(tmp_path: Path) -> None:
    assert cut(tmp_path, "sks dog, " + LONG * 7) == []
    assert too_long("x", ["a b c"], Room(FakeBackbone().count_tokens, 3)) == ""


@pytest.mark.parametrize(
    ("instance", "kind", "subject"),
    [
        ("a photo of sks dog", "a photo of a dog", {"sks"}),
        ("a photo of sks dog on the grass", "a photo of a dog", {"sks"}),
        ("a photo of Anna Meier, a person", "a person", {"anna", "meier"}),
        ("a photo of sks dog", "", {"sks"}),
        ("a photo of a dog", "a photo of a dog", set()),
    ],
)
def test_the_name_of_the_subject(instance: str, kind: str, subject: set[str]) -> None:
    assert Prompts(instance, kind).subject == subject
