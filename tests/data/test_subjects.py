"""Several subjects in one run, each with stages of its own: python -m pytest tests/data"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fake_model import FakeModule
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor

from shortcut_lightning.attacks import Attack, RandomNoise
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.callbacks.evaluation import by_subject
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.cli import main
from shortcut_lightning.data import PersonalizationDataModule, SeveralSubjects
from shortcut_lightning.data.settings import Passes, Sampled
from shortcut_lightning.data.subjects import SubjectSet
from shortcut_lightning.data.training import TrainSet
from shortcut_lightning.prompts import Decoupling
from shortcut_lightning.purifiers import Gaussian


class Shift(Attack):
    """Adds eight levels."""

    def run(self, images: Tensor, backbone: Any, prompts: list[str], generator: Any) -> Tensor:
        return images + 8 / 255


def subject(
    tmp_path: Path, name: str, count: int, size: tuple[int, int] = (16, 16), **options: Any
) -> PersonalizationDataModule:
    folder = tmp_path / name
    if not folder.is_dir():
        folder.mkdir()
        for number in range(count):
            chance = torch.Generator().manual_seed(number)
            pixels = torch.randint(200, (*size[::-1], 3), generator=chance)
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{number}.png")
    settings = {
        "class_prompt": f"a photo of a {name}",
        "with_prior_preservation": True,
        "num_class_images": 2,
        "train_batch_size": 2,
        "evaluation": Sampled(images_per_prompt=3),
        "training": Passes(repeats=1),
        "cache_dir": str(tmp_path / "cache"),
    } | options
    return PersonalizationDataModule(str(folder), f"a photo of sks {name}", **settings)


def several(tmp_path: Path, **options: Any) -> SeveralSubjects:
    """Two pictures as they are, three protected, two protected and purified and seen twice."""
    purified = {"purifiers": [Gaussian(0.8)], "training": Passes(repeats=2)}
    return SeveralSubjects(
        {
            "dog": subject(tmp_path, "dog", 2, **options),
            "cat": subject(tmp_path, "cat", 3, attack=Shift(), **options),
            "cow": subject(tmp_path, "cow", 2, attack=Shift(), **purified, **options),
        }
    )


def run(
    data: Any,
    folder: Path,
    checkpoint: Path | None = None,
    kind: type[FakeModule] = FakeModule,
    **options: Any,
) -> FakeModule:
    pl.seed_everything(3, verbose=False)
    module = kind()
    settings = {"max_steps": 9, "callbacks": [ModelCheckpoint(folder, "last")]} | options
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **settings,
    )
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)
    trainer.test(module, data, verbose=False)
    return module


pytestmark = pytest.mark.filterwarnings("ignore")


def test_no_two_are_given_the_same_noise(tmp_path: Path) -> None:
    def added(data: Any) -> list[Tensor]:
        run(data, tmp_path, max_steps=1)
        pairs = zip(data.given, data.published, strict=True)
        return [after.image - before.image for before, after in pairs]

    attack = {"attack": RandomNoise(8)}
    alone = added(subject(tmp_path, "dog", 2, **attack))
    subjects = {name: subject(tmp_path, name, 2, **attack) for name in ("dog", "cat")}
    noise = added(SeveralSubjects(subjects))
    assert all(torch.equal(*pair) for pair in zip(alone, noise[:2], strict=True))
    assert (noise[0].sign() == noise[2].sign()).float().mean() < 0.7


def test_each_has_its_stages_class_images_and_share(tmp_path: Path) -> None:
    data = several(tmp_path)
    module = run(data, tmp_path)
    levels = [each.image * 255 for each in data.given]
    changes = [
        (after.image * 255 - b).abs() for after, b in zip(data.trained_on, levels, strict=True)
    ]
    assert [float(each.max()) for each in changes[:5]] == [0, 0, 8, 8, 8]
    assert all(each.max() > 8 for each in changes[5:])
    assert [each.name for each in data.given][::3] == ["dog/0.png", "cat/1.png", "cow/1.png"]
    seen = Counter(prompt for batch in module.seen for prompt in batch.prompts)
    # Nine steps of two: twice through two, three, and two pictures that are seen twice.
    assert seen == {
        **{"a photo of sks dog": 4, "a photo of sks cat": 6, "a photo of sks cow": 8},
        **{"a photo of a dog": 4, "a photo of a cat": 6, "a photo of a cow": 8},
    }
    for batch in module.seen:
        words = [prompt.split()[-1] for prompt in batch.prompts]
        assert words[:2] == words[2:]  # beside each instance the class image of its subject


def test_each_is_evaluated_by_itself(tmp_path: Path) -> None:
    data = several(tmp_path)
    module = run(data, tmp_path)
    asked = {
        int(number): prompt
        for batch in module.asked
        if batch.arm == "tuned"
        for number, prompt in zip(batch.ids, batch.prompts, strict=True)
    }
    words = ["dog"] * 3 + ["cat"] * 3 + ["cow"] * 3
    assert [asked[number].split()[-1] for number in range(9)] == words
    images = torch.arange(9.0).view(9, 1, 1, 1).expand(9, 3, 2, 2)
    samples = Samples(
        "tuned", images, words, [""] * 9, [0] * 9, list(range(9)), torch.device("cpu")
    )
    parts = list(by_subject(samples, data))
    assert [name for name, _, _ in parts] == ["@dog", "@cat", "@cow"]
    for name, some, its in parts:
        assert some.prompts == [name[1:]] * 3
        assert its is data.subjects[name[1:]]
    assert parts[1][1].images[:, 0, 0, 0].tolist() == [3, 4, 5]
    assert list(by_subject(samples, None)) == [("", samples, None)]


def test_subjects_in_buckets_are_sampled_at_one_size(tmp_path: Path) -> None:
    """A batch is of one bucket of one subject, and pictures of all stand side by side."""
    data = {
        name: subject(tmp_path, name, 2, size, bucketing=True, training=Passes(bucket_ratio=4.0))
        for name, size in {"ant": (16, 16), "bee": (64, 16)}.items()
    }
    module = run(SeveralSubjects(data), tmp_path)
    assert {batch.images.shape[-2:] for batch in module.seen} == {(16, 16), (8, 32)}
    assert len({batch.size for batch in module.asked}) == 1


class Looks(FakeModule):
    """Learns nothing: a forked process may take no gradients where its parent has."""

    automatic_optimization = False

    def training_step(self, batch: TrainBatch, batch_idx: int) -> None:
        self.seen.append(batch)
        self.optimizers().step()


class Leave(pl.Callback):
    """Each process writes what it saw, and what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        batches = pl_module.seen
        rows = [[batch.draws.tolist(), batch.prompts] for batch in batches]
        (self.folder / f"seen{trainer.global_rank}.json").write_text(json.dumps(rows))

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        asked = [[batch.arm, n] for batch in pl_module.asked for n in batch.ids.tolist()]
        (self.folder / f"asked{trainer.global_rank}.json").write_text(json.dumps(asked))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_share_the_row_and_the_evaluation(tmp_path: Path) -> None:
    one, two = several(tmp_path), several(tmp_path, train_batch_size=1)
    run(one, tmp_path, kind=Looks, callbacks=[Leave(tmp_path / "one")])
    pair = {"callbacks": [Leave(tmp_path / "two")], "devices": 2, "strategy": "ddp_fork"}
    run(two, tmp_path, kind=Looks, **pair)

    def left(place: str) -> list[Any]:
        return json.loads((tmp_path / f"{place}.json").read_text())

    whole = left("one/seen0")
    parts = list(zip(left("two/seen0"), left("two/seen1"), strict=True))
    assert len(parts) == len(whole) == 9
    for (draws, prompts), ((draws_a, prompts_a), (draws_b, prompts_b)) in zip(
        whole, parts, strict=True
    ):
        assert sorted(draws_a + draws_b) == sorted(draws)
        assert sorted(prompts_a + prompts_b) == sorted(prompts)
    shared = left("two/asked0"), left("two/asked1")
    assert all(shared)
    assert sorted([*shared[0], *shared[1]]) == sorted(left("one/asked0"))


def test_a_resumed_run_sees_the_same_row(tmp_path: Path) -> None:
    whole = run(several(tmp_path), tmp_path / "whole")
    run(several(tmp_path), tmp_path / "cut", max_steps=4)
    rest = run(several(tmp_path), tmp_path / "rest", tmp_path / "cut" / "last.ckpt")
    assert [b.draws.tolist() for b in rest.seen] == [b.draws.tolist() for b in whole.seen[4:]]
    assert [b.prompts for b in rest.seen] == [b.prompts for b in whole.seen[4:]]


def test_places_follow_each_other_in_each_subjects_stream(tmp_path: Path) -> None:
    from shortcut_lightning.batch import Example

    def of(word: str, count: int) -> TrainSet:
        examples = [Example(torch.zeros(3, 8, 8), f"{word}{n}", "") for n in range(count)]
        return TrainSet(examples, [], side=8, random_flip=False, seed=1)

    sets = [of("a", 2), of("b", 4)]
    for batch in (1, 3):
        dataset = SubjectSet(sets, [1, 1], batch, seed=1)
        assert len(dataset) == 6
        rows = [dataset[position][0] for position in range(36)]
        assert [row.draw for row in rows] == list(range(0, 72, 2))
        for index, word in enumerate("ab"):
            mine = [row.prompt for row in rows if row.prompt[0] == word]
            assert mine == [sets[index][place][0].prompt for place in range(len(mine))]
        assert sum(row.prompt[0] == "a" for row in rows) == 12
        groups = [{row.prompt[0] for row in rows[i : i + batch]} for i in range(0, 36, batch)]
        assert all(len(words) == 1 for words in groups)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train_batch_size": 3}, "train_batch_size is 2 of a and 3"),
        (
            {"evaluation": Sampled(images_per_prompt=3, base=False)},
            r"evaluation\.base is True of a and False",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"data\.subjects is empty"):
        SeveralSubjects({})
    data = {"a": subject(tmp_path, "a", 1), "b": subject(tmp_path, "b", 1, **options)}
    with pytest.raises(ValueError, match=rf"data\.subjects: {said} of b; .* be the same"):
        SeveralSubjects(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("contrast_margin", 0.02),
        ("noise", "xyz speckle"),
        ("instance_suffix", " with {noise}"),
        ("class_suffix", ", clean"),
    ],
)
def test_a_contrast_is_worded_alike_for_all(tmp_path: Path, key: str, value: Any) -> None:
    def both(contrast: float) -> SeveralSubjects:
        usual = Decoupling(training=True, contrast=contrast)
        return SeveralSubjects(
            {
                "a": subject(tmp_path, "a", 1, decoupling=usual),
                "b": subject(tmp_path, "b", 1, decoupling=replace(usual, **{key: value})),
            }
        )

    both(0)  # each is worded by itself
    with pytest.raises(ValueError, match=rf"decoupling\.{key} is .* of a and {value!r} of b;"):
        both(0.5)


CONFIG = """
trainer:
  max_steps: 2
  accelerator: cpu
  enable_progress_bar: false
  callbacks: [Evaluation, IdentityMatch, Stages, ReportWriter]
model:
  class_path: DreamBooth
  init_args: {{pretrained_model_name_or_path: {model}, sampling: {{num_inference_steps: 1}}}}
data:
  class_path: SeveralSubjects
  init_args:
    subjects:
      dog:
        class_path: PersonalizationDataModule
        init_args: &shared
          instance_data_dir: {folder}/dog
          instance_prompt: a photo of sks dog
          evaluation: {{images_per_prompt: 1, base: false}}
      cat:
        class_path: PersonalizationDataModule
        init_args:
          <<: *shared
          instance_data_dir: {folder}/cat
          instance_prompt: a photo of sks cat
          attack: {{class_path: RandomNoise, init_args: {{epsilon: 8}}}}
"""


@pytest.mark.slow
def test_the_report_of_a_run_is_of_each_subject(small_sd: Path, tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        subject(tmp_path, name, 2)
    (tmp_path / "two.yaml").write_text(CONFIG.format(model=small_sd, folder=tmp_path))
    main(["fit", "--config", str(tmp_path / "two.yaml"), "--output_dir", str(tmp_path / "runs")])
    report = json.loads((tmp_path / "runs/two/version_0/report.json").read_text())
    assert {"eval/identity@dog", "eval/identity@cat"} <= report["metrics"].keys()
    assert report["metrics"]["eval/stage_perturbed_linf_255@cat"]["value"] == pytest.approx(8)
    assert "eval/stage_perturbed_linf_255@dog" not in report["metrics"]
