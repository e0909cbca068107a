"""Evaluation and its metrics in a bare Trainer. Run: pytest tests/callbacks/test_measuring.py"""

import csv
import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from small_run import PROMPTS, Batches, Colours, SmallData, SmallModule, paint, rows, small_trainer

from shortcut_lightning.batch import PromptBatch
from shortcut_lightning.callbacks import (
    ClipAlignment,
    Evaluation,
    EvaluationCallback,
    FrechetDistance,
    IdentityMatch,
)
from shortcut_lightning.callbacks.evaluation import BY_PICTURE
from shortcut_lightning.callbacks.samples import Samples, from_batch, merge
from shortcut_lightning.metrics import Estimate, image_text_similarity
from shortcut_lightning.prompts import Prompts


def all_measures() -> list[EvaluationCallback]:
    return [ClipAlignment(Colours()), IdentityMatch(Colours()), FrechetDistance(Colours())]


def evaluate(folder: Path, *callbacks, data: SmallData | None = None, **options) -> Evaluation:
    evaluation = Evaluation()
    trainer = small_trainer(folder, [*callbacks, evaluation], **options)
    trainer.test(SmallModule(), datamodule=data or SmallData(), verbose=False)
    return evaluation


class Seeing(EvaluationCallback):
    """Keeps what it is given."""

    extractor = "eyes"

    def __init__(self) -> None:
        self.seen: list[Samples] = []

    def measure(self, samples, datamodule) -> dict[str, Estimate]:
        self.seen.append(samples)
        return {"sights": Estimate(1.0, 0.0, 2.0, len(samples))}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """One evaluation with every metric, and its run folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    return evaluate(folder, *all_measures()), folder / "run" / "v"


def test_every_metric_of_both_arms_with_its_interval(evaluated) -> None:
    evaluation, _ = evaluated
    names = ["clip_t", "clip_i", "identity", "fid_colours", "kid_colours"]
    assert set(evaluation.estimates) == {f"{a}/{n}" for a in ("eval", "base") for n in names}
    for estimate in evaluation.estimates.values():
        assert estimate.low <= estimate.value <= estimate.high
    assert evaluation.estimates["eval/clip_t"].n == 12
    assert evaluation.estimates["eval/fid_colours"].n == 5  # the references are fewer
    assert evaluation.extractors["base/identity"] == "colours"


def test_the_subject_is_recognised_after_tuning_only(evaluated) -> None:
    estimates = evaluated[0].estimates
    assert estimates["eval/identity"].low > 0.98
    assert estimates["eval/identity"].low > estimates["base/identity"].high
    assert estimates["eval/fid_colours"].high < estimates["base/fid_colours"].low


def test_single_pictures_are_kept_for_pairing(evaluated) -> None:
    evaluation, folder = evaluated
    with (folder / BY_PICTURE).open() as file:
        rows = list(csv.DictReader(file))
    assert {row["metric"] for row in rows} == {"eval/identity", "base/identity"}
    own = [row for row in rows if row["metric"] == "eval/identity"]
    assert [row["image"] for row in own] == [str(number) for number in range(12)]
    mean = sum(float(row["value"]) for row in own) / 12
    assert mean == pytest.approx(evaluation.estimates["eval/identity"].value)


def test_numbers_reach_the_table(evaluated) -> None:
    evaluation, folder = evaluated
    with (folder / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    for name, estimate in evaluation.estimates.items():
        assert float(last[name]) == pytest.approx(estimate.value, rel=1e-4, abs=1e-6)


def test_saved_images_are_the_measured_ones(evaluated) -> None:
    evaluation, folder = evaluated
    for arm, samples in evaluation.samples.items():
        described = rows(folder / "samples" / arm / "metadata.jsonl")
        assert [row["text"] for row in described] == samples.prompts
        assert [row["seed"] for row in described] == list(range(7, 19))
        assert described[0]["negative_prompt"] == "blurry"
        with Image.open(folder / "samples" / arm / described[3]["file_name"]) as image:
            pixels = torch.tensor(list(image.tobytes())).reshape(8, 8, 3).permute(2, 0, 1)
        assert torch.equal(pixels.float() / 255, samples.images[3])


def test_small_samples_are_warned_of(evaluated) -> None:
    warnings = " ".join(evaluated[0].warnings)
    assert "Fewer than 10 images behind eval/fid_colours (5)" in warnings
    assert "eval/clip_t" not in warnings  # that one has 12


def test_too_few_for_the_dimension_is_logged(tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        evaluation = evaluate(
            tmp_path, FrechetDistance(Colours()), data=SmallData(per_prompt=1, references=2)
        )
    assert "3 generated and 2 reference images for 3 features" in caplog.text
    assert len(evaluation.warnings) == len(set(evaluation.warnings)) == 2


def test_callbacks_share_one_set_of_images(tmp_path) -> None:
    one, two = Seeing(), Seeing()
    evaluation = evaluate(tmp_path, one, two)
    assert [samples.arm for samples in one.seen] == ["tuned", "base"]
    assert all(a is b for a, b in zip(one.seen, two.seen, strict=True))
    assert one.seen[0].prompts == [prompt for prompt in PROMPTS for _ in range(4)]
    assert evaluation.estimates["eval/sights"] == Estimate(1.0, 0.0, 2.0, 12)


def test_two_callbacks_with_one_name_keep_both_numbers(tmp_path) -> None:
    other = Seeing()
    other.extractor = "glasses"
    evaluation = evaluate(tmp_path, Seeing(), other)
    assert set(evaluation.estimates) == {
        f"{arm}/{name}" for arm in ("eval", "base") for name in ("sights", "sights_glasses")
    }


def test_without_references_only_the_words_are_compared(tmp_path) -> None:
    evaluation = evaluate(tmp_path, *all_measures(), data=SmallData(references=0))
    assert set(evaluation.estimates) == {"eval/clip_t", "base/clip_t"}
    assert any("IdentityMatch compares with reference images" in w for w in evaluation.warnings)


def test_references_that_were_trained_on_are_warned_of_once(tmp_path) -> None:
    data = SmallData()
    data.references, data.held_out = list(data.given), False
    evaluation = evaluate(tmp_path, *all_measures(), data=data)
    assert sum("no held-out references" in warning for warning in evaluation.warnings) == 1


@pytest.mark.parametrize(("source", "warned"), [("pocket:3", False), ("photos/dog", True)])
def test_pocket_networks_on_other_images_are_warned_of(tmp_path, source, warned) -> None:
    encoder, data = Colours(), SmallData()
    encoder.only_pocket = True
    data.instance_data_dir = source
    evaluation = evaluate(tmp_path, IdentityMatch(encoder), data=data)
    assert any("not of its drawn world" in w for w in evaluation.warnings) == warned


def test_one_image_and_one_reference_do_not_stop_a_run(tmp_path) -> None:
    class OnePrompt(SmallData):
        def test_dataloader(self):
            batch = self.batches("tuned").batches[0]
            return Batches([PromptBatch(*(part[:1] for part in batch[:4]), arm="tuned")])

    evaluation = evaluate(tmp_path, *all_measures(), data=OnePrompt(references=1))
    assert math.isnan(evaluation.estimates["eval/fid_colours"].value)
    assert evaluation.estimates["eval/identity"].n == 1
    assert any("need two images in each set" in warning for warning in evaluation.warnings)


def test_words_that_clip_never_saw_are_left_out() -> None:
    class Reading(Colours):
        def texts(self, prompts, device):
            self.read = list(prompts)
            return super().texts(prompts, device)

    images = torch.stack([paint(torch.rand(3), i) for i in range(3)])
    samples = Samples("tuned", images, PROMPTS, [""] * 3, [0, 1, 2], [0, 1, 2], torch.device("cpu"))
    encoder = Reading()
    ClipAlignment(encoder).measure(samples, None)
    assert encoder.read[0] == "a photo of thing"
    said = replace(samples, prompts=["a photo of Bhj thing", "sks thing", "a thing"])
    for prompts, first in {
        Prompts("a photo of bhj thing", "a photo of a thing"): "a photo of thing",
        Prompts("a photo of bhj thing"): "a photo of Bhj thing",  # who knows whether it is a word?
        Prompts("sks bhj thing", "a thing"): "a photo of Bhj thing",  # as it always was
    }.items():
        ClipAlignment(encoder).measure(said, SimpleNamespace(prompts=prompts))
        assert encoder.read == [first, "thing", "a thing"]
    numbers = ClipAlignment(Colours(), ignored_words=[]).measure(samples, None)
    assert list(numbers) == ["clip_t"]
    expected = image_text_similarity(encoder.images(images), encoder.texts(PROMPTS, images.device))
    assert numbers["clip_t"] == expected


def test_a_second_test_replaces_the_first(tmp_path) -> None:
    evaluate(tmp_path, data=SmallData(per_prompt=4))
    evaluation = evaluate(tmp_path, data=SmallData(per_prompt=1))
    folder = tmp_path / "run" / "v" / "samples" / "tuned"
    assert len(list(folder.glob("*.png"))) == len(rows(folder / "metadata.jsonl")) == 3
    assert len(evaluation.samples["tuned"]) == 3


def test_a_rehearsal_leaves_no_files(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluation = evaluate(tmp_path, *all_measures(), fast_dev_run=True)
    assert len(evaluation.samples["tuned"]) == 4
    assert not (tmp_path / "samples").exists()


def test_repeated_images_count_once_and_order_is_by_id() -> None:
    def batch(ids: list[int]) -> PromptBatch:
        return PromptBatch([f"p{i}" for i in ids], [""] * len(ids), *[torch.tensor(ids)] * 2)

    images = {i: torch.full((3, 4, 4), i / 10) for i in range(5)}
    shards = [
        from_batch(batch(ids), torch.stack([images[i] for i in ids]))
        for ids in ([4, 0], [2, 4], [1, 3])
    ]
    merged = merge([s for shard in shards for s in shard], torch.device("cpu"))["tuned"]
    assert merged.ids == [0, 1, 2, 3, 4]
    assert merged.prompts == ["p0", "p1", "p2", "p3", "p4"]
    assert torch.allclose(merged.images[:, 0, 0, 0], torch.arange(5) / 10, atol=1 / 510)


def test_a_step_that_loses_images_is_named() -> None:
    batch = PromptBatch(["a", "b"], ["", ""], torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="returned 1 images for 2 prompts"):
        from_batch(batch, torch.rand(1, 3, 4, 4))


def test_a_module_that_returns_no_images_is_warned_of(tmp_path) -> None:
    class Silent(SmallModule):
        def test_step(self, batch, batch_idx, dataloader_idx=0):
            return None

    evaluation = Evaluation()
    trainer = small_trainer(tmp_path, [evaluation, *all_measures()])
    trainer.test(Silent(), datamodule=SmallData(), verbose=False)
    assert evaluation.estimates == {}
    assert evaluation.warnings[0].startswith("Nothing was measured")


def test_negative_number_of_logged_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Evaluation\.max_logged_images is -1"):
        Evaluation(max_logged_images=-1)


def test_networks_are_wanted_at_the_start_and_never_enter_a_checkpoint(tmp_path) -> None:
    class Missing(Colours):
        def __init__(self):
            pass

        @property
        def network(self):
            raise ValueError("no weights here")

    trainer = small_trainer(tmp_path, [Evaluation(), IdentityMatch(Missing())])
    with pytest.raises(ValueError, match="no weights here"):
        trainer.fit(SmallModule(), datamodule=SmallData())

    trainer = small_trainer(tmp_path, [Evaluation(), *all_measures()], enable_checkpointing=True)
    trainer.fit(SmallModule(), datamodule=SmallData())
    (path,) = (tmp_path / "run" / "v" / "checkpoints").glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=False)
    assert set(checkpoint["state_dict"]) == {"weight"}
    assert path.stat().st_size < 100_000  # one encoder's network alone has four million bytes
