"""The flow from folder to batches: python -m pytest tests/data/test_datamodule.py"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fake_model import FakeBackbone, FakeModule
from PIL import Image
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.attacks import Attack, RandomNoise
from shortcut_lightning.batch import Example, PromptBatch
from shortcut_lightning.concepts import Erasing, NoDetector, PrecomputedBoxes
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.erasing import in_vain
from shortcut_lightning.data.settings import NoisyClassImages, Passes, Sampled
from shortcut_lightning.data.training import TrainSet
from shortcut_lightning.prompts import Decoupling
from shortcut_lightning.purifiers import Gaussian, Jpeg, Oracle
from shortcut_lightning.safe_guidance import SafeGuidance

PROMPT = "a photo of sks dog"


def add_images(folder: Path, count: int = 3, size: tuple[int, int] = (24, 20)) -> Path:
    folder.mkdir()
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(256, (size[1], size[0], 3), generator=generator)
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return add_images(tmp_path / "photos")


def fit(
    photos: Path | str, tmp_path: Path, steps: int = 3, seed: int = 0, **options: Any
) -> tuple[PersonalizationDataModule, FakeModule, pl.Trainer]:
    pl.seed_everything(seed, verbose=False)
    options = {"cache_dir": str(tmp_path / "cache"), "train_batch_size": 2} | options
    data = PersonalizationDataModule(str(photos), PROMPT, **options)
    module = FakeModule()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=-1,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, data)
    return data, module, trainer


pytestmark = pytest.mark.filterwarnings("ignore")


class Shift(Attack):
    """Adds a constant and counts how often it had to work."""

    calls = 0

    def __init__(self, epsilon: float = 8.0) -> None:
        super().__init__(epsilon)

    def run(self, images: Tensor, backbone: Any, prompts: list[str], generator: Any) -> Tensor:
        Shift.calls += 1
        assert prompts == [PROMPT] * len(images)
        return images + self.epsilon / 255


def test_by_default_images_are_trained_on_as_given(photos: Path, tmp_path: Path) -> None:
    data, module, _ = fit(photos, tmp_path)
    assert [example.name for example in data.given] == ["0.png", "1.png", "2.png"]
    assert data.trained_on == data.given
    assert data.boxes == [[], [], []]
    assert data.class_images == []
    assert set(data.seconds) == {"load", "perturb", "purify", "detect"}
    batch = module.seen[0]
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert batch.prompts == [PROMPT] * 2
    assert not batch.is_prior.any()
    assert batch.draws.tolist() == [0, 2]
    assert batch.moments is None
    assert not list(tmp_path.rglob("*.safetensors"))


def test_stages_run_once_in_order_and_are_cached(photos: Path, tmp_path: Path) -> None:
    Shift.calls = 0
    purifiers = [Gaussian(0.8), Jpeg(50)]
    data, module, trainer = fit(photos, tmp_path, attack=Shift(), purifiers=purifiers)
    trainer.test(module, data, verbose=False)
    assert Shift.calls == 1
    shifted = torch.stack([example.image for example in data.given]) + 8 / 255
    expected = (shifted.clamp(0, 1) * 255).round() / 255
    for purifier in purifiers:
        words = ["a photo"] * len(expected)
        expected = purifier(expected, module.backbone, words, generator=torch.Generator())
    assert torch.equal(torch.stack([example.image for example in data.trained_on]), expected)

    again, _, _ = fit(photos, tmp_path, attack=Shift(), purifiers=purifiers)
    assert Shift.calls == 1
    for one, other in zip(again.trained_on, data.trained_on, strict=True):
        assert torch.equal(one.image, other.image)
        assert (one.name, one.prompt) == (other.name, other.prompt)
    fit(photos, tmp_path, attack=Shift(epsilon=9))
    assert Shift.calls == 2


def test_the_seed_changes_a_random_attack_and_nothing_else_does(
    photos: Path, tmp_path: Path
) -> None:
    def result(cache: str, **options: Any) -> Tensor:
        data, _, _ = fit(
            photos, tmp_path, attack=RandomNoise(8), cache_dir=str(tmp_path / cache), **options
        )
        return torch.stack([example.image for example in data.trained_on])

    assert torch.equal(
        result("a"),
        result("b", training=Passes(repeats=2), evaluation=Sampled(images_per_prompt=1)),
    )
    assert not torch.equal(result("a"), result("a", seed=1))


def test_images_of_unequal_size_go_through_the_stages(photos: Path, tmp_path: Path) -> None:
    for size in ((16, 40), (33, 16), (24, 20)):
        Image.new("RGB", size, "red").save(photos / f"{size}.png")
    Shift.calls = 0
    data, module, _ = fit(
        photos, tmp_path, attack=Shift(), training=Passes(center_crop=False), steps=12
    )
    assert Shift.calls == 3
    for before, after in zip(data.given, data.trained_on, strict=True):
        assert min(before.image.shape[1:]) == 16
        assert torch.equal(after.image, (before.image * 255 + 8).round().clamp(max=255) / 255)
    assert {batch.images.shape for batch in module.seen} == {torch.Size([2, 3, 16, 16])}
    assert {example.image.shape for example in data.references} == {torch.Size([3, 16, 16])}


def test_detectors_look_at_what_is_trained_on(photos: Path, tmp_path: Path) -> None:
    row = '{"file_name": "1.png", "boxes": [{"label": "qr", "score": 1, "xyxy": null}]}'
    (tmp_path / "boxes.jsonl").write_text(row)
    data, _, _ = fit(photos, tmp_path, detector=PrecomputedBoxes(str(tmp_path / "boxes.jsonl")))
    assert [[box.label for box in found] for found in data.boxes] == [[], ["qr"], []]


@pytest.mark.parametrize(
    ("erasing", "said"),
    [
        (Erasing(caption="name", alpha=2.0), "data.erasing.caption, data.erasing.alpha changed"),
        (Erasing(contaminated="drop"), "data.erasing.contaminated changed nothing."),
        (
            Erasing(negative="name", safety=SafeGuidance()),
            "data.erasing.negative changed nothing, and data.erasing.safety has no words to avoid.",
        ),
        (Erasing(grid_size=4), ""),
    ],
)
def test_erasing_what_nobody_found_is_warned_of(
    photos: Path, tmp_path: Path, erasing: Erasing, said: str
) -> None:
    typed = in_vain(Erasing(negative="name", safety=SafeGuidance()), NoDetector(), 3, "a mark")
    assert typed == ""  # as configs/erasing/sld_medium.yaml is used without a detector
    file = tmp_path / "boxes.jsonl"
    file.write_text('{"file_name": "another.png", "boxes": []}\n')
    for name, detector in {
        "not set": NoDetector(),
        "PrecomputedBoxes": PrecomputedBoxes(str(file)),
    }.items():
        data, _, _ = fit(photos, tmp_path, steps=1, detector=detector, erasing=erasing)
        told = [each for each in data.warnings if "data.detector" in each]
        where = f"No concept was found in any of 3 images (data.detector is {name}), so "
        assert bool(told) == bool(said)
        assert all(each.startswith(where) and said in each for each in told)


@pytest.mark.parametrize(("contaminated", "left"), [("inpaint", [0, 0, 0]), ("drop", [0, 0])])
def test_what_was_found_outlives_its_removal(
    contaminated: Any, left: list[int], photos: Path, tmp_path: Path
) -> None:
    box = '{"label": "qr", "score": 1, "xyxy": [0, 0, 0.5, 0.5]}'
    (tmp_path / "boxes.jsonl").write_text(f'{{"file_name": "1.png", "boxes": [{box}]}}')
    data, _, _ = fit(
        photos,
        tmp_path,
        detector=PrecomputedBoxes(str(tmp_path / "boxes.jsonl")),
        erasing=Erasing(contaminated=contaminated),
    )
    assert [len(boxes) for boxes in data.boxes] == left
    assert [len(boxes) for boxes in data.found] == [0, 1, 0]


def test_class_images_are_the_second_half(photos: Path, tmp_path: Path) -> None:
    options = {
        "with_prior_preservation": True,
        "class_prompt": "a photo of dog",
        "num_class_images": 5,
    }
    data, module, _ = fit(photos, tmp_path, **options)
    assert len(data.class_images) == len(module.backbone.sampled) == 5
    assert {prompt for prompt, _ in module.backbone.sampled} == {"a photo of dog"}
    batch = module.seen[0]
    assert batch.is_prior.tolist() == [False, False, True, True]
    assert batch.prompts == [PROMPT, PROMPT, "a photo of dog", "a photo of dog"]
    assert batch.draws.tolist() == [0, 2, 1, 3]
    known = {example.image.numpy().tobytes() for example in data.class_images}
    assert all(image.numpy().tobytes() in known for image in batch.images[2:])
    _, plain, _ = fit(photos, tmp_path)
    assert torch.equal(plain.seen[1].images, module.seen[1].images[:2])
    assert torch.equal(plain.seen[1].draws, module.seen[1].draws[:2])

    _, later, _ = fit(photos, tmp_path, **options | {"num_class_images": 6})
    assert len(later.backbone.sampled) == 1


def test_perturbed_copies_of_class_images_are_called_noisy(photos: Path, tmp_path: Path) -> None:
    options = {
        "with_prior_preservation": True,
        "class_prompt": "a photo of dog",
        "num_class_images": 4,
        "noisy_class_images": NoisyClassImages(
            attacks=[RandomNoise(epsilon=40, sign=True)], count=3
        ),
        "decoupling": Decoupling(training=True),
        "train_batch_size": 7,
    }
    data, module, _ = fit(photos, tmp_path, steps=1, **options)
    assert (len(data.class_images), len(data.noisy_copies)) == (4, 3)
    for before, after in zip(data.class_images, data.noisy_copies, strict=False):
        assert (after.name, after.prompt) == (before.name, before.prompt)
        assert 39.9 < 255 * (after.image - before.image).abs().max() < 40.1
    batch = module.seen[0]
    words = {False: "a photo of dog, without bhj noisy pattern"}
    words[True] = "a photo of dog, bhj noisy pattern"
    noisy = {example.image.numpy().tobytes() for example in data.noisy_copies}
    said = [
        (image.numpy().tobytes() in noisy, prompt)
        for image, prompt in zip(batch.images[7:], batch.prompts[7:], strict=True)
    ]
    assert len(said) == 7
    assert sum(is_noisy for is_noisy, _ in said) == 3
    assert all(prompt == words[is_noisy] for is_noisy, prompt in said)

    moments, cached, _ = fit(photos, tmp_path, steps=1, cache_latents=True, **options)
    assert len(moments._moments) == 3 + 4 + 3
    assert cached.seen[0].prompts == batch.prompts

    two = [RandomNoise(epsilon=40, sign=True), RandomNoise(epsilon=20, sign=True)]
    turns, _, _ = fit(
        photos, tmp_path, steps=1, **options | {"noisy_class_images": NoisyClassImages(attacks=two)}
    )
    clean = {example.name: example.image for example in turns.class_images}
    far = {e.name: 255 * (e.image - clean[e.name]).abs().max() for e in turns.noisy_copies}
    names = [example.name for example in turns.class_images[:3]]
    assert [round(float(far[name])) for name in names] == [40, 20, 40]

    purified, _, _ = fit(photos, tmp_path, purifiers=[Gaussian()], **options)
    of_all = Gaussian()(
        torch.stack([example.image for example in data.noisy_copies]),
        FakeModule().backbone,
        ["a photo of dog"] * 3,
        generator=torch.Generator(),
    )
    left = torch.stack([example.image for example in purified.noisy_copies])
    torch.testing.assert_close(left, of_all, atol=1 / 500, rtol=0)
    untouched = zip(purified.class_images, data.class_images, strict=True)
    assert all(torch.equal(a.image, b.image) for a, b in untouched)


def test_what_is_taken_off_the_photographs_is_put_on_class_images(
    photos: Path, tmp_path: Path
) -> None:
    data, module, _ = fit(
        photos,
        tmp_path,
        with_prior_preservation=True,
        class_prompt="a photo of dog",
        num_class_images=4,
        attack=RandomNoise(epsilon=60),
        noisy_class_images=NoisyClassImages(transplant=[Oracle()], transplant_limit=20),
        decoupling=Decoupling(training=True),
        train_batch_size=8,
    )
    assert len(data.noisy_copies) == 4
    for before, after in zip(data.class_images, data.noisy_copies, strict=True):
        change = (255 * (after.image - before.image)).abs()
        assert change.max() < 20.1
        assert (change > 19.9).float().mean() > 0.3  # two thirds of the noise is above 20
    assert module.seen[0].prompts[8:].count("a photo of dog, bhj noisy pattern") == 4


def test_noisy_copies_draw_other_noise_than_the_photographs_and_each_other(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = [], draws.generator

    def noted(seed: int, stage: str, draw: int) -> torch.Generator:
        asked.append((stage, draw))
        return real(seed, stage, draw)

    monkeypatch.setattr(draws, "generator", noted)
    noise = RandomNoise(epsilon=40, sign=True)
    options = {
        "with_prior_preservation": True,
        "class_prompt": "a photo of dog",
        "num_class_images": 4,
        "attack": noise,
        "purifiers": [Gaussian()],
        "decoupling": Decoupling(training=True),
        "steps": 1,
    }
    plain, _, _ = fit(photos, tmp_path / "plain", **options)
    own = {each for each in asked if each[0].startswith(("perturb", "purify"))}
    assert own == {(stage, draw) for stage in ("perturb", "purify-0") for draw in (0,)}
    asked.clear()
    wanted = NoisyClassImages(attacks=[noise, noise], transplant=[Gaussian(0.5)])
    data, _, _ = fit(photos, tmp_path, noisy_class_images=wanted, **options)
    drawn = [each for each in asked if each[0].startswith(("perturb", "purify"))]
    assert own < set(drawn)
    assert len(drawn) == len(set(drawn))
    for one, other in zip(plain.trained_on, data.trained_on, strict=True):
        assert torch.equal(one.image, other.image)
    assert {each.name for each in (tmp_path / "cache").iterdir()} >= {"perturb", "purify"}
    assert not list((tmp_path / "cache").glob("*-copies*"))


def test_class_images_of_a_folder_are_used(photos: Path, tmp_path: Path) -> None:
    mine = add_images(tmp_path / "mine", 4)
    data, module, _ = fit(
        photos,
        tmp_path,
        with_prior_preservation=True,
        class_prompt="a photo of dog",
        class_data_dir=str(mine),
        num_class_images=4,
    )
    assert module.backbone.sampled == []
    assert [example.name for example in data.class_images] == [f"{n}.png" for n in range(4)]


def test_cached_latents_are_the_encoders(photos: Path, tmp_path: Path) -> None:
    options = {
        "with_prior_preservation": True,
        "class_prompt": "a photo of dog",
        "num_class_images": 5,
    }
    data, module, _ = fit(photos, tmp_path, cache_latents=True, **options)
    _, plain, _ = fit(photos, tmp_path, **options)
    batch, same = module.seen[2], plain.seen[2]
    assert batch.images.shape == (4, 0)
    assert batch.draws.tolist() == same.draws.tolist()
    posterior = FakeModule().backbone.eval().encode(same.images)
    assert batch.moments is not None
    assert torch.equal(batch.moments, torch.stack([posterior.mean, posterior.std], 1).detach())
    assert "cache latents" in data.seconds


def test_validation_is_over_the_references_and_always_the_same(
    photos: Path, tmp_path: Path
) -> None:
    held_out = add_images(tmp_path / "held_out", 5, size=(40, 18))
    data, module, _ = fit(
        photos,
        tmp_path,
        steps=4,
        training=Passes(repeats=2),
        reference_data_dir=str(held_out),
        evaluation=Sampled(batch_size=2),
    )
    assert len(data.references) == 5
    once = len(data.val_dataloader())
    assert once == 3
    rounds = [module.validated[i : i + once] for i in range(0, len(module.validated), once)]
    assert len(rounds) >= 2
    for one in rounds:
        assert torch.cat([batch.draws for batch in one]).tolist() == [-1, -2, -3, -4, -5]
        images = torch.cat([batch.images for batch in one])
        assert torch.equal(images, torch.stack([example.image for example in data.references]))


def test_without_references_the_given_images_stand_in(photos: Path, tmp_path: Path) -> None:
    data, _, _ = fit(photos, tmp_path, attack=Shift())
    for reference, given in zip(data.references, data.given, strict=True):
        assert torch.equal(reference.image, given.image)
    assert not data.held_out


def test_noise_words_stay_behind_captions_that_are_too_long(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        (photos / f"{number}.txt").write_text("a dog " + "and a ball " * 60)
    decoupling = Decoupling(training=True, sampling=True)
    data, module, _ = fit(photos, tmp_path, use_captions=True, decoupling=decoupling)
    for prompt in module.seen[0].prompts:
        assert prompt.startswith("a dog and a ball")
        assert prompt.endswith(", bhj noisy pattern")
        assert module.backbone.count_tokens(prompt) <= module.backbone.prompt_length
    data.test_dataloader()
    (doubt,) = data.warnings
    assert doubt.startswith("captions (data.use_captions): 1 of 1 do not fit")
    data.eval_prompts = ["a dog " * 60]
    for _ in range(2):  # looks
        data.test_dataloader()
        assert "no room for data.decoupling.sampling_suffix" in data.warnings[-1]
        assert len(data.warnings) == 2


def test_a_generated_subject_brings_its_references(tmp_path: Path) -> None:
    data, module, _ = fit("pocket:3", tmp_path, use_captions=True)
    assert len(data.given) == 4
    assert len(data.references) == 32
    assert data.held_out
    assert all(prompt for prompt in module.seen[0].prompts)
    assert module.seen[0].prompts != [PROMPT] * 2


def test_evaluation_is_prompts_times_count_times_arms(photos: Path, tmp_path: Path) -> None:
    data, module, trainer = fit(
        photos, tmp_path, evaluation=Sampled(images_per_prompt=3, negative_prompt="blurry")
    )
    trainer.test(module, data, verbose=False)
    assert [batch.arm for batch in module.asked] == ["tuned", "base"]
    assert module.asked[0] == PromptBatch(
        [PROMPT] * 3, ["blurry"] * 3, *module.asked[0][2:4], "tuned", [PROMPT] * 3
    )
    assert module.asked[0].seeds.tolist() == module.asked[0].ids.tolist() == [0, 1, 2]
    data, module, trainer = fit(
        photos,
        tmp_path,
        evaluation=Sampled(images_per_prompt=1, base=False, prompts=["a", "b"], seed=9),
    )
    trainer.test(module, data, verbose=False)
    (batch,) = module.asked
    assert (batch.prompts, batch.seeds.tolist(), batch.arm) == (["a", "b"], [9, 10], "tuned")


def test_predict_needs_prompts_and_no_images(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("c\n\n  d \n")
    data = PersonalizationDataModule(
        evaluation=Sampled(
            predict_prompts=["a", "b"],
            predict_prompts_file=str(tmp_path / "prompts.txt"),
            images_per_prompt=2,
        ),
    )
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    images = trainer.predict(FakeModule(), data)
    assert sum(map(len, images or [])) == 8
    with pytest.raises(
        ValueError, match=r"set data\.evaluation\.predict_prompts to a list of prompts or"
    ):
        trainer.predict(FakeModule(), PersonalizationDataModule())
    with pytest.raises(
        ValueError, match=r"No file of prompts at 'x\.txt' \(data\.evaluation\.predict_prompts_f"
    ):
        trainer.predict(
            FakeModule(),
            PersonalizationDataModule(evaluation=Sampled(predict_prompts_file="x.txt")),
        )


def test_crops_and_flips_come_from_the_draw_alone() -> None:
    image = torch.arange(8 * 12).reshape(1, 8, 12).expand(3, 8, 12) / 255
    examples = [Example(image, PROMPT, "a.png")]
    dataset = TrainSet(examples, [], side=8, random_flip=True, seed=0)
    views = [dataset[position][0].image for position in range(200)]
    assert {view.shape for view in views} == {torch.Size([3, 8, 8])}
    lefts = {int(view[0, 0].min() * 255 + 0.5) for view in views}
    flipped = [bool(view[0, 0, 0] > view[0, 0, 1]) for view in views]
    assert lefts == {0, 1, 2, 3, 4}
    assert 70 < sum(flipped) < 130
    assert all(torch.equal(dataset[n][0].image, views[n]) for n in (150, 3, 77))
    other = TrainSet(examples, [], side=8, random_flip=True, seed=1)
    assert not all(torch.equal(other[n][0].image, views[n]) for n in range(20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cache_latents": True, "training": Passes(random_flip=True)},
            r"data\.cache_latents .* data\.training\.random_flip .* set one of them to false",
        ),
        (
            {"cache_latents": True, "training": Passes(center_crop=False)},
            r"data\.training\.center_crop is false.* set data\.training\.center_crop to true or",
        ),
        (
            {"with_prior_preservation": True},
            r"data\.with_prior_preservation needs data\.class_prompt",
        ),
        (
            {"noisy_class_images": NoisyClassImages(attacks=[RandomNoise()])},
            r"data\.noisy_class_images\.attacks needs class images .* noisy",
        ),
        (
            {"noisy_class_images": NoisyClassImages(transplant=[Gaussian()])},
            r"data\.noisy_class_images\.transplant needs class images",
        ),
        ({"train_batch_size": 0}, r"\.train_batch_size is 0; it must be from 1 to 65536"),
        (
            {"resolution": -1},
            r"PersonalizationDataModule\.resolution is -1; it must be from 0 to 32768",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PersonalizationDataModule("photos", PROMPT, **options)


def test_an_instance_prompt_is_needed(photos: Path, tmp_path: Path) -> None:
    data = PersonalizationDataModule(str(photos))
    with pytest.raises(ValueError, match=r"data\.instance_prompt is not set"):
        pl.Trainer(accelerator="cpu", logger=False).fit(FakeModule(), data)


def test_a_resolution_the_model_cannot_do_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"data\.resolution is 20; this model needs a multiple of 8"
    ):
        fit(photos, tmp_path, resolution=20)


def test_frequent_bins_are_named_where_mirrored_images_show_them(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBackbone, "prompt_length", 75, raising=False)
    words = {"<l15>": 1}
    monkeypatch.setattr(FakeBackbone, "count_tokens", lambda self, text: words.get(text, 2))
    file = tmp_path / "boxes.jsonl"
    box = '{"label": "mark", "score": 1, "xyxy": [0, 0, 0.25, 0.25]}'
    file.write_text(f'{{"file_name": "0.png", "boxes": [{box}]}}\n')
    data, _, _ = fit(
        photos,
        tmp_path,
        training=Passes(random_flip=True),
        detector=PrecomputedBoxes(str(file)),
        erasing=Erasing(negative="name+top-k", grid_size=4),
    )
    tuned = next(iter(data.test_dataloader()))
    assert tuned.negative_prompts[0] == "mark<l0><l3>"
