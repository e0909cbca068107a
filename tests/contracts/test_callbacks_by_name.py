"""Every callback of the package, found by walking it, in one run of each built-in family.

python -m pytest tests/contracts/test_callbacks_by_name.py [-m slow]
"""

import copy
import csv
import json
import math
import sys
from abc import ABC
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from both_families import FAMILIES, pictures, write_pictures
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from test_stage_contracts import concrete
from torch import Tensor

from shortcut_lightning import backbones, callbacks
from shortcut_lightning.attacks import RandomNoise
from shortcut_lightning.callbacks.ema import EMA
from shortcut_lightning.callbacks.evaluation import Evaluation
from shortcut_lightning.callbacks.finite import StopAtNaN
from shortcut_lightning.callbacks.step_bar import StepBar
from shortcut_lightning.callbacks.throughput import Throughput
from shortcut_lightning.concepts import Erasing, GridClassifier, PrecomputedBoxes
from shortcut_lightning.concepts.generators import Watermark
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.settings import Sampled
from shortcut_lightning.faces import FaceEncoder
from shortcut_lightning.finite import NotFinite
from shortcut_lightning.membership import CLiDThreshold, NullOnly
from shortcut_lightning.metrics import PocketClip
from shortcut_lightning.modules import GeometryErasure
from shortcut_lightning.modules.settings import Sampling
from shortcut_lightning.purifiers import Jpeg

# Bases are no callbacks of their own.
CALLBACKS = [
    kind
    for kind in concrete(callbacks, Callback)
    if kind.__module__.startswith(callbacks.__name__) and ABC not in kind.__bases__
]


class EveryFace(FaceEncoder):
    """Sees a face in each picture: its colours."""

    name = "colours"
    network = "there"

    def embedding(self, image: Tensor) -> Tensor | None:
        return image.mean((1, 2))


# What a callback cannot do without, and what makes it ask little.
GIVEN: dict[str, dict[str, Any]] = {
    "ClipIqa": {"encoder": PocketClip()},
    "ConceptExtraction": {"seeds": [0]},
    "ConceptRatio": {"detector": GridClassifier(labels=["watermark"])},
    "FaceIdentity": {"encoder": EveryFace()},
    "Look": {"every_n_steps": 2, "columns": 1, "measure": True, "best": "identity"},
    "Membership": {"every_n_steps": 2, "score": CLiDThreshold(NullOnly(), n_t=1)},
    "PaperQuality": {"clip": PocketClip()},
    "SampleGrid": {
        "every_n_steps": 2,
        "prompts": ["{instance}"],
        "seeds": [0],
        "num_inference_steps": 2,
    },
    "Throughput": {"warm_up_steps": 1},
    "TokenProbe": {"detector": GridClassifier(), "places": [(0.0, 0.0, 0.5, 0.5)], "seeds": [0]},
}
# What each leaves in a run: numbers of the report by name, files, columns of metrics.csv behind @.
# Those without an entry are asked below.
LEAVES: dict[str, list[str]] = {
    "ClipAlignment": ["eval/clip_t", "eval/clip_i", "base/clip_t", "base/clip_i"],
    "ClipIqa": ["eval/clip_iqa_pocket-clip", "base/clip_iqa_pocket-clip"],
    "ConceptExtraction": [
        f"eval/extracted_{what}_{how}"
        for what in ("noise", "lead", "texture")
        for how in ("alone", "with_class")
    ],
    "ConceptRatio": [
        "eval/concept_ratio",
        "base/concept_ratio",
        "eval/concept_ratio_floor",
        "eval/f_star_r_pocket",
        "concept_bins_tuned.csv",
        "concepts_in_training.png",
    ],
    "Evaluation": ["samples/tuned/00001.png", "samples/base/metadata.jsonl", "by_picture.csv"],
    "Export": ["export/model/model_index.json", "export/tokens"],
    "FaceIdentity": ["eval/face_missing_colours", "eval/face_match_colours"],
    "FrechetDistance": ["eval/fid_pocket", "eval/kid_pocket", "base/fid_pocket"],
    "HighFrequency": ["eval/high_frequency", "eval/high_frequency_references"],
    "IdentityCeiling": ["eval/identity_ceiling"],
    "IdentityMatch": ["eval/identity", "base/identity"],
    "Look": ["looks/000002.png", "checkpoints/best.ckpt", "@look/identity"],
    "Membership": ["membership.csv", "@audit/auc", "@audit/auc_before"],
    "Misalignment": [
        f"eval/{what}_{state}"
        for what in ("p_noise", "lead_pattern", "cos_concept")
        for state in ("clean", "random", "perturbed", "purified")
    ],
    "PaperQuality": ["eval/q_paper"],
    "PaperScores": [
        f"eval/{what}"
        for what in ("clip_iqac", "q_pocket", "ims_cos_pocket-identity", "ims_ref_pocket-identity")
    ],
    "PyiqaQuality": ["eval/iqa_liqe", "base/iqa_liqe"],
    "Quality": ["eval/quality_pocket", "eval/noisy_pocket", "base/quality_pocket"],
    "ReportWriter": ["report.json", "report.html", "photograph.png"],
    "SampleGrid": ["grid.png", "grids/000002.png"],
    "SaveImages": ["images/00000.png", "images/metadata.jsonl"],
    "StageFidelity": ["eval/protect_linf_255", "eval/protect_psnr", "eval/purified_ssim"],
    "Stages": [
        f"eval/stage_{what}"
        for what in ("perturbed_psnr", "marked_psnr", "purified_psnr", "marks_found")
    ],
    "TextureLevel": ["eval/texture", "eval/texture_references"],
    "TokenProbe": ["eval/token_draws_there"],
}


class Run(NamedTuple):
    """One training of two steps, evaluation and prediction."""

    folder: Path
    trainer: Trainer
    module: GeometryErasure
    learned: dict[str, Tensor]  # weights that a training without any callback ends with

    def callback(self, kind: type) -> Any:
        return next(each for each in self.trainer.callbacks if type(each) is kind)  # type: ignore[attr-defined]

    @property
    def logged(self) -> dict[str, float]:
        """The last value of each column."""
        with (self.folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return {name: float(row[name]) for row in rows for name in row if row[name]}


def a_trainer(folder: Path, of: list[Callback]) -> Trainer:
    return Trainer(
        max_steps=2,
        accelerator="cpu",
        callbacks=of,
        logger=CSVLogger(str(folder), name="", version="run"),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(each, StepBar) for each in of),
        enable_model_summary=False,
    )


def the_data(folder: Path) -> PersonalizationDataModule:
    """Photographs that are protected, marked, purified, and looked at for their marks."""
    return PersonalizationDataModule(
        str(folder / "mine"),
        "a photo of sks person",
        class_prompt="a photo of a person",
        reference_data_dir=str(folder / "others"),
        train_batch_size=2,
        attack=RandomNoise(epsilon=8),
        contamination=Watermark(share=0.75),
        purifiers=[Jpeg()],
        detector=PrecomputedBoxes(str(folder / "boxes.jsonl")),
        erasing=Erasing(caption="geometry", grid_size=4),
        evaluation=Sampled(images_per_prompt=2, predict_prompts=["{instance} at night"]),
    )


@pytest.fixture(scope="module", params=FAMILIES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, (images, _) = tmp_path_factory.mktemp("run"), pictures(7)
    write_pictures(images[:4], folder / "mine")
    write_pictures(images[4:], folder / "others")
    box = {"label": "watermark", "score": 1.0, "xyxy": [0.0, 0.0, 1.0, 1.0]}
    rows = [json.dumps({"file_name": f"{number}.png", "boxes": [box]}) for number in range(4)]
    (folder / "boxes.jsonl").write_text("\n".join(rows))
    module = GeometryErasure(
        grid_size=4,
        pretrained_model_name_or_path=request.param,
        learning_rate=1e-4,
        sampling=Sampling(num_inference_steps=2, guidance_scale=3.0),
    )
    bare = copy.deepcopy(module)
    a_trainer(folder / "bare", []).fit(bare, datamodule=the_data(folder))
    learned = {n: p.detach() for n, p in bare.named_parameters() if p.requires_grad}

    stand_in = ModuleType("pyiqa")  # whose score is how light a picture is
    stand_in.create_metric = lambda name: Light()  # type: ignore[attr-defined]
    trainer = a_trainer(folder, [kind(**GIVEN.get(kind.__name__, {})) for kind in CALLBACKS])
    data = the_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyiqa", stand_in)
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
        trainer.predict(module, datamodule=data, return_predictions=False)
    return Run(folder / "run", trainer, module, learned)


class Light(torch.nn.Module):
    """How light a picture is, from 1 to 5."""

    def forward(self, image: Tensor) -> Tensor:
        return 1 + 4 * image.mean().reshape(1, 1)


def test_the_walk_finds_what_the_package_names() -> None:
    named = set(callbacks.__all__) - {"EvaluationCallback"}
    found = {kind.__name__ for kind in CALLBACKS}
    assert named <= found
    asked_below = {"EMA", "StopAtNaN", "StepBar", "Throughput"}
    assert found == set(LEAVES) | asked_below


@pytest.mark.parametrize("name", LEAVES)
def test_a_callback_leaves_what_it_promises(name: str, run: Run) -> None:
    estimates, logged = run.callback(Evaluation).estimates, run.logged
    for thing in LEAVES[name]:
        if thing.startswith(("eval/", "base/")):
            assert logged[thing] == pytest.approx(estimates[thing].value, rel=1e-4, abs=1e-6)
        elif thing.startswith("@"):
            assert math.isfinite(logged[thing[1:]]), thing
        else:
            assert (run.folder / thing).exists(), thing


def test_the_report_holds_every_number_and_all_are_finite(run: Run) -> None:
    report = json.loads((run.folder / "report.json").read_text())
    estimates = run.callback(Evaluation).estimates
    assert set(report["metrics"]) == set(estimates)
    values = [each[key] for each in report["metrics"].values() for key in ("value", "low", "high")]
    assert all(math.isfinite(value) for value in values)
    assert {"train", "sample", "ClipAlignment", "TokenProbe"} <= set(report["seconds"])


def test_training_is_as_without_them_and_ends_with_the_average(run: Run) -> None:
    ema = run.callback(EMA)
    assert ema._in_training.keys() == run.learned.keys()
    assert all(torch.equal(ema._in_training[name], run.learned[name]) for name in run.learned)
    now = {n: p.detach() for n, p in run.module.named_parameters() if p.requires_grad}
    averages = dict(zip(now, ema.average.shadow_params, strict=True))
    assert all(torch.equal(now[name], averages[name]) for name in now)
    assert any(not torch.equal(now[name], run.learned[name]) for name in now)


def test_what_was_exported_is_the_model_that_was_evaluated(run: Run) -> None:
    exported = backbones.load(str(run.folder / "export" / "model"))
    assert type(exported) is type(run.module.backbone)
    ours = run.module.backbone.denoiser.state_dict()
    theirs = exported.denoiser.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_the_bar_and_the_watch_have_seen_both_steps(run: Run) -> None:
    assert run.callback(StepBar).train_progress_bar.n == 2
    throughput = run.callback(Throughput)
    assert throughput.seconds["train"] > 0
    assert throughput.speed["steps/s"] > 0
    assert throughput.speed["images/s"] > 0


def test_weights_that_are_no_numbers_are_kept_nowhere(run: Run) -> None:
    stop = run.callback(StopAtNaN)
    broken = {"state_dict": {"a": torch.tensor(math.nan)}}
    with pytest.raises(NotFinite, match=r"weights are NaN or infinite.*Nothing was exported"):
        stop.on_save_checkpoint(run.trainer, run.module, broken)
