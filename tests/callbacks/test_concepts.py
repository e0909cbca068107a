"""Counting concepts in an evaluation: python -m pytest tests/callbacks/test_concepts.py"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_run import SmallData, SmallModule, small_trainer
from torch import Tensor

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.callbacks import ConceptRatio, Evaluation, Stages, TokenProbe
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.concepts import Captioner, Detector, Erasing
from shortcut_lightning.metrics import ImageEncoder
from shortcut_lightning.prompts import Prompts


class White(Detector):
    """Finds quadrants that are white."""

    def __init__(self, label: str = "white") -> None:
        self.label = label

    def run(self, images: Tensor, names: Any = ()) -> list[list[ConceptBox]]:
        found: list[list[ConceptBox]] = [[] for _ in images]
        half = images.shape[-1] // 2
        for number, image in enumerate(images):
            for row in (0, 1):
                for column in (0, 1):
                    part = image[:, row * half : (row + 1) * half, column * half :][:, :, :half]
                    if part.min() > 0.9:
                        box = (column / 2, row / 2, column / 2 + 0.5, row / 2 + 0.5)
                        found[number].append(ConceptBox(self.label, 1.0, box))
        return found


class Other(White):
    """The same, of another name."""


class Mean(ImageEncoder):
    """Mean colour as a feature."""

    name = "mean"
    network = None

    def images(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def pictures(white: int, n: int = 20) -> Tensor:
    """The first `white` of n pictures are white in their first quadrant."""
    images = 0.8 * torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(white))
    images[:white, :, :4, :4] = 1
    return images


def samples(white: int, arm: str = "tuned") -> Samples:
    images = pictures(white)
    n = len(images)
    texts = [["a photo"] * n, [""] * n, list(range(n)), list(range(n))]
    return Samples(arm, images, *texts, torch.device("cpu"))  # type: ignore[arg-type]


def references(data: SmallData, white: int) -> SmallData:
    data.references = [Example(image, "", f"{i}") for i, image in enumerate(pictures(white))]
    return data


def marked(images: list[Tensor], rows: int) -> list[Example]:
    """The images with their first rows white, by name."""
    made = [image.clone() for image in images]
    for image in made:
        image[:, :rows] = 1
    return [Example(image, "", f"{number}.png") for number, image in enumerate(made)]


def test_stages_are_measured_against_what_was_given() -> None:
    """Three photographs, marked in two, cleaned of nothing; one mark is found, one is not, and one
    box is where no mark is."""
    images = [image for image in 0.5 * torch.rand(3, 3, 32, 32)]
    box = ConceptBox("mark", 1.0, (0.0, 0.0, 1.0, 0.25))
    data: Any = SmallData()
    data.given = data.perturbed = marked(images, 0)
    data.published = [*marked(images[:2], 8), data.given[2]]
    data.trained_on = data.published
    data.pasted = [[box], [box], []]
    data.found, data.boxes = [[box], [], [box]], [[], [], []]  # as after painting over
    callback = Stages()
    found = {name: e.value for name, e in callback.measure(samples(0), data).items()}
    assert set(found) == {
        *(f"stage_marked_{key}" for key in ("linf_255", "psnr", "ssim")),
        "stage_marks_found",
        "stage_false_alarms",
    }
    assert found["stage_marked_linf_255"] > 250
    assert 0 < found["stage_marked_psnr"] < 30
    assert found["stage_marks_found"] == 0.5
    assert found["stage_false_alarms"] == 1
    trainer: Any = type("T", (), {"datamodule": data})()
    (section,) = callback.show({"tuned": samples(0)}, trainer, Path())
    assert "found in 2 of 3" in section.lead
    assert section.html.count("data:image") == 9  # given, marked, detected
    assert "purified" not in section.html


def test_ratio_floor_and_their_product_with_the_distance() -> None:
    callback = ConceptRatio(White(), Mean())
    found = callback.measure(samples(5), references(SmallData(), 1))
    assert found["concept_ratio"].value == 0.25
    assert found["concept_ratio_floor"].value == 0.05
    assert set(found) == {"concept_ratio", "concept_ratio_floor", "f_star_r_mean"}
    assert found["f_star_r_mean"].value > 0
    assert callback.warnings() == []
    none = callback.measure(samples(0), references(SmallData(), 0))
    assert none["f_star_r_mean"].value == 0
    base = callback.measure(samples(5, "base"), references(SmallData(), 1))
    assert "concept_ratio_floor" not in base


class Two(White):
    """White in the first quadrant is a logo, elsewhere a text."""

    def run(self, images: Tensor, names: Any = ()) -> list[list[ConceptBox]]:
        return [
            [box._replace(label="text" if any(box.xyxy[:2]) else "logo") for box in boxes]
            for boxes in super().run(images)
        ]


def test_a_label_that_is_gone_has_a_ratio_of_zero() -> None:
    """Known from another arm of that subject or from training, if that calls anything the same."""
    callback, data = ConceptRatio(Two(), Mean()), SmallData()
    texts = samples(5, "base")
    texts.images[:] = texts.images.flip(-1)
    texts.images[0, :, :4, :4] = 1
    base = callback.measure(texts, data)
    assert (base["concept_ratio_text"].value, base["concept_ratio_logo"].value) == (0.25, 0.05)
    tuned = callback.measure(samples(5), data)
    assert (tuned["concept_ratio_text"].value, tuned["concept_ratio_logo"].value) == (0.0, 0.25)
    callback.of_whom = "@another"
    assert "concept_ratio_text" not in callback.measure(samples(5), data)
    data.found = [[ConceptBox(label, 1.0, None)] for label in ("text", "logo")]
    assert callback.measure(samples(5), data)["concept_ratio_text"].value == 0
    data.found = [[ConceptBox(label, 1.0, None)] for label in ("words", "sign")]
    assert "concept_ratio_words" not in callback.measure(samples(5), data)


def test_without_clean_references_there_is_no_floor() -> None:
    data = SmallData()
    data.references, data.held_out = data.given, False
    callback = ConceptRatio(White(), Mean())
    assert set(callback.measure(samples(5), data)) == {"concept_ratio"}
    assert "floor" in callback.warnings()[0]


def test_the_trainings_own_detector_is_warned_of() -> None:
    data: Any = references(SmallData(), 0)
    data.detector = White()
    callback = ConceptRatio(White(), Mean())
    callback.measure(samples(5), data)
    assert "Use another detector" in callback.warnings()[0]
    data.detector = Other()
    callback.measure(samples(5), data)
    assert callback.warnings() == []


def test_the_report_shows_what_was_found_where(tmp_path: Path) -> None:
    data: Any = references(SmallData(), 0)
    data.boxes = [[ConceptBox("white", 1.0, (0, 0, 0.5, 0.5))], [], [], [], [], []]
    callback = ConceptRatio(White(), Mean(), grid_size=2)
    arms = {arm: samples(5, arm) for arm in ("tuned", "base")}
    for arm in arms.values():
        callback.measure(arm, data)

    class Run:
        datamodule = data

    trainer: Any = Run()
    training, tuned, base = callback.show(arms, trainer, tmp_path)
    assert training.lead.startswith("1 of 6 images")
    assert (tmp_path / "concepts_in_training.png").exists()
    assert tuned.lead.startswith("5 of 20 images, by White")
    assert 'style="--share:0.250">25<' in tuned.html
    bins = np.loadtxt(tmp_path / "concept_bins_tuned.csv", delimiter=",")
    assert bins.shape == (2, 2)
    assert bins.max() == 0.25
    assert tuned.html.count("<td") == 4
    assert base.html.count("data:image/png") == 12


def test_each_of_several_subjects_is_shown_with_its_own_boxes(tmp_path: Path) -> None:
    data: Any = references(SmallData(), 0)
    data.subjects = {"dog": references(SmallData(), 0), "a/cat": references(SmallData(), 0)}
    data.sampled_ids = {"dog": range(5), "a/cat": range(5, 12)}
    evaluation = Evaluation()
    trainer = small_trainer(tmp_path, [evaluation, ConceptRatio(White(), Mean(), grid_size=2)])
    trainer.test(SmallModule(), data, verbose=False)
    of = "Concepts in images of the"
    assert [(section.title, section.lead[:12]) for section in evaluation.sections] == [
        (f"{of} tuned model @dog", "0 of 5 image"),
        (f"{of} tuned model @a/cat", "0 of 7 image"),
        (f"{of} base model @dog", "0 of 5 image"),
        (f"{of} base model @a/cat", "0 of 7 image"),
    ]
    assert (tmp_path / "run" / "v" / "concept_bins_base@a_cat.csv").is_file()


class Obedient(SmallModule):
    """Paints white where the prompt's words of places say."""

    def sample(self, batch: Any) -> Tensor:
        images = torch.zeros(len(batch.prompts), 3, 8, 8)
        for image, prompt in zip(images, batch.prompts, strict=True):
            for bin in range(4):
                if f"<l{bin}>" in prompt:
                    y, x = divmod(bin, 2)
                    image[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 1
        return images


class Deaf(Obedient):
    """Always paints the same corner."""

    def sample(self, batch: Any) -> Tensor:
        return super().sample(batch._replace(prompts=["<l3>"] * len(batch.prompts)))


@pytest.mark.parametrize(
    ("kind", "share", "detector", "label"),
    [
        (Obedient, 1.0, White(), "white"),
        (Deaf, 0.25, White(), "white"),
        (Obedient, 1.0, White(), "mark"),  # training's detector has another word
        (Obedient, 0.25, Two(), "logo"),  # what lies elsewhere is a text
    ],
)
def test_the_probe_tells_whether_words_are_obeyed(
    kind: type, share: float, detector: Detector, label: str
) -> None:
    data: Any = SmallData()
    data.boxes = [[ConceptBox(label, 1.0, (0, 0, 0.5, 0.5))]]
    data.eval_prompts = ["a photo of sks thing"]
    data.captioner = Captioner(
        Erasing(caption="geometry", grid_size=2),
        Prompts(""),
        lambda text: text.count("<") + (text == "<l4>"),
        75,
    )
    probe = TokenProbe(detector, seeds=(0, 1))
    module = kind()

    class Plugin:
        def forward_context(self) -> Any:
            return torch.no_grad()

    class Run:
        precision_plugin = Plugin()

    module._trainer = Run()
    module._fabric = None
    probe.setup(Run(), module, "test")  # type: ignore[arg-type]
    found = probe.measure(samples(0), data)
    assert found["token_draws_there"].value == share
    assert found["token_draws_there"].n == 8
    (section,) = probe.show({}, Run(), Path())  # type: ignore[arg-type]
    assert section.html.count("found there") == 2 * 8 * share  # as caption and as alt text
    assert probe.measure(samples(0, "base"), data) == {}
    probe.of_whom = "@another"
    probe.measure(samples(0), data)
    titles = [each.title for each in probe.show({}, Run(), Path())]  # type: ignore[arg-type]
    assert titles == [section.title, f"{section.title} @another"]
    data.prompts, probe.prompt = Prompts("a photo of bhj thing"), "{instance} at night"
    probe.of_whom = ""
    probe.measure(samples(0), data)
    section = probe.show({}, Run(), Path())[-1]  # type: ignore[arg-type]
    assert section.lead.startswith(f"'a photo of bhj thing at night' with {label}")
    data.captioner = None
    for probe.of_whom in ("@another", ""):
        assert probe.measure(samples(0), data) == {}
    assert probe.show({}, Run(), Path()) == []  # type: ignore[arg-type]
