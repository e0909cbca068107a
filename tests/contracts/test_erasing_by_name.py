"""Every way to erase a concept, those of `configs/`, on both built-in families.

python -m pytest tests/contracts/test_erasing_by_name.py [-m slow]
"""

import copy
import inspect
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from both_families import FAMILIES, pictures, write_pictures
from lightning.pytorch import Callback, LightningModule, Trainer
from test_fragments import build, fragments
from torch import Tensor

from shortcut_lightning import modules
from shortcut_lightning.batch import PromptBatch, TrainBatch
from shortcut_lightning.concepts import Erasing, PrecomputedBoxes
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.settings import Sampled
from shortcut_lightning.modules import GeometryErasure, UnifiedConceptEditing
from shortcut_lightning.modules.settings import Sampling

ERASE_NOTHING = {"AntiPersonalization", "CAT", "ConceptClassifierTraining", "DreamBooth"}
SAMPLING = Sampling(num_inference_steps=2, guidance_scale=3.0)
BOX = {"label": "watermark", "score": 1.0, "xyxy": [0.0, 0.0, 0.375, 0.375]}


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four, the first two with a white mark whose boxes are in the file beside the folder."""
    images, _ = pictures(4)
    images[:2, :, :24, :24] = 1
    folder = write_pictures(images, tmp_path_factory.mktemp("marked") / "pictures")
    rows = [json.dumps({"file_name": f"{number}.png", "boxes": [BOX]}) for number in range(2)]
    (folder.parent / "boxes.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def untrained(family: str) -> GeometryErasure:
    return GeometryErasure(
        pretrained_model_name_or_path=family, learning_rate=1e-4, token_lr=1e-2, sampling=SAMPLING
    )


@pytest.fixture
def module(untrained: GeometryErasure) -> GeometryErasure:
    """A copy to train, beside the same untouched model."""
    return copy.deepcopy(untrained, {id(untrained.base()): untrained.base()})


class Seen(Callback):
    """What was trained on, and how far off it was."""

    def __init__(self) -> None:
        self.batches: list[TrainBatch] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *given: Any) -> None:
        self.batches.append(given[0])
        self.losses.append(float(outputs["loss"]))

    @property
    def prompts(self) -> list[str]:
        return [prompt for batch in self.batches for prompt in batch.prompts]


def trained(
    module: LightningModule, photographs: Path, folder: Path, rule: Erasing
) -> tuple[PersonalizationDataModule, Seen, set[str]]:
    """Two steps: what was served, what was seen, and the names of the weights that moved."""
    data = PersonalizationDataModule(
        str(photographs),
        "a photo of sks person",
        train_batch_size=2,
        detector=PrecomputedBoxes(str(photographs.parent / "boxes.jsonl")),
        erasing=rule,
        evaluation=Sampled(images_per_prompt=1),
    )
    before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    trainer = Trainer(
        max_steps=2,
        accelerator="cpu",
        callbacks=[seen := Seen()],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)
    assert torch.tensor(seen.losses).isfinite().all()
    now = module.named_parameters()
    return data, seen, {name for name, weight in now if not torch.equal(weight, before[name])}


def drawn(module: Any, batch: PromptBatch, **changes: Any) -> Tensor:
    images = module.sample(batch._replace(**changes))
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1
    return images


@pytest.mark.parametrize("file", fragments("erasing"), ids=lambda file: file.stem)
def test_a_mode_does_what_it_says(
    file: Path, module: GeometryErasure, photographs: Path, tmp_path: Path
) -> None:
    rule: Erasing = build("erasing", file)
    data, seen, moved = trained(module, photographs, tmp_path, rule)
    said = [prompt for prompt in seen.prompts if "watermark" in prompt]
    assert len(said) == (0 if rule.caption == "none" else 2)
    assert all(("watermark<l0><l1>" in each) == (rule.caption == "geometry") for each in said)
    assert any(name.startswith(("backbone.unet", "backbone.transformer")) for name in moved)
    assert any("text_encoder" in name for name in moved) == (rule.caption == "geometry")
    check_loss_weights(rule, seen)
    check_contaminated(rule, data)
    check_drawn(rule, data, module)


def check_loss_weights(rule: Erasing, seen: Seen) -> None:
    weights = [each.loss_weights for each in seen.batches if each.loss_weights is not None]
    maps = [row for batch in weights for row in batch]
    assert bool(maps) == rule.reweights
    for each in maps:
        covered, beside = float(each[0, 0, 0]), float(each[0, -1, -1])
        assert covered == pytest.approx(1) or covered == pytest.approx(beside / rule.alpha)
    assert sum(bool(each.std() > 0) for each in maps) == (2 if rule.reweights else 0)


def check_contaminated(rule: Erasing, data: PersonalizationDataModule) -> None:
    names = [each.name for each in data.trained_on]
    assert names == (["2.png", "3.png"] if rule.contaminated == "drop" else names)
    given = {each.name: each.image for each in data.given}
    changed = [each.name for each in data.trained_on if not each.image.equal(given[each.name])]
    assert changed == (["0.png", "1.png"] if rule.contaminated == "inpaint" else [])
    assert sum(map(bool, data.boxes)) == (2 if rule.contaminated == "keep" else 0)


def check_drawn(rule: Erasing, data: PersonalizationDataModule, module: GeometryErasure) -> None:
    """What is avoided is asked of the sampler in the tuned arm alone, and heard by it."""
    tuned, base = data.test_dataloader()
    (negative,) = tuned.negative_prompts
    assert base.negative_prompts == [""]
    assert negative.startswith("watermark") == (rule.negative != "none")
    assert ("<l0>" in negative) == rule.negative.startswith("name+")
    assert (tuned.safety, base.safety) == (rule.safety, rule.safety)
    image = drawn(module, tuned)
    if rule.negative == "none":
        return
    plain = drawn(module, tuned, negative_prompts=[""], safety=None)
    assert not torch.equal(plain, image)
    if rule.safety:
        assert not torch.equal(drawn(module, tuned, safety=None), image)


def test_words_that_are_learned_alone_leave_the_model_as_it_was(
    family: str, photographs: Path, tmp_path: Path
) -> None:
    module = GeometryErasure(
        "model", pretrained_model_name_or_path=family, token_lr=0.1, sampling=SAMPLING
    )
    data, _, moved = trained(module, photographs, tmp_path, Erasing(caption="geometry"))
    assert moved
    assert all(name.endswith(".rows") for name in moved)
    tuned, base = data.test_dataloader()
    image = drawn(module, tuned)
    assert torch.equal(drawn(module, base), image)
    assert not torch.equal(drawn(module, tuned, negative_prompts=["watermark<l0><l1>"]), image)


def unlearning() -> list[Any]:
    """Each file of `configs/unlearning` with each choice of the weights that learn."""
    found = []
    for file in fragments("unlearning"):
        settings = yaml.safe_load(file.read_text())
        kind = getattr(modules, settings["class_path"])
        arguments = inspect.signature(kind, eval_str=True).parameters
        parts = get_args(arguments["parts"].annotation) if "parts" in arguments else ()
        for part in parts or ("",):
            options = settings["init_args"] | ({"parts": part} if part else {})
            if "ddim_steps" in arguments:
                options["ddim_steps"] = 2
            found.append(pytest.param(kind, options, id=f"{file.stem} {part}".strip()))
    return found


UNLEARNING = unlearning()


def test_every_model_that_erases_is_asked() -> None:
    asked = {case.values[0].__name__ for case in UNLEARNING}
    assert asked | {"GeometryErasure"} == set(modules.__all__) - ERASE_NOTHING


@pytest.mark.parametrize(("kind", "options"), UNLEARNING)
def test_what_unlearns_a_word_draws_another_picture_of_it(
    kind: type, options: dict[str, Any], family: str, photographs: Path, tmp_path: Path
) -> None:
    module = kind(**options, pretrained_model_name_or_path=family, sampling=SAMPLING)
    free = {name for name, weight in module.named_parameters() if weight.requires_grad}
    if kind is UnifiedConceptEditing:
        with pytest.raises(ValueError, match=r"edits without training: use `test` or `predict`\.$"):
            trained(module, photographs, tmp_path, Erasing())
    else:
        _, seen, moved = trained(module, photographs, tmp_path, Erasing())
        assert moved
        assert moved <= free
        assert torch.equal(*(module(seen.batches[0])["loss"] for _ in range(2)))
    batch = PromptBatch(["QR code"], [""], torch.tensor([3]), torch.tensor([0]))
    image = drawn(module, batch)
    assert torch.equal(drawn(module, batch), image)
    assert not torch.equal(drawn(module, batch, arm="base"), image)
