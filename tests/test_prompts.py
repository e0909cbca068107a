"""Every string that reaches a text encoder: python -m pytest tests/test_prompts.py"""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from PIL import Image

from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.data.evaluation import prompt_batches
from shortcut_lightning.data.training import Row, collate
from shortcut_lightning.prompts import Decoupling, Prompts, purification

FRAGMENTS = Path(__file__).parents[1] / "configs" / "decoupling"
SKS, PERSON = "a photo of sks person", "a photo of a person"


def prompts(**settings: Any) -> Prompts:
    return Prompts(SKS, PERSON, decoupling=Decoupling(**settings))


def preset(name: str, **changes: Any) -> Prompts:
    return prompts(**yaml.safe_load((FRAGMENTS / f"{name}.yaml").read_text()) | changes)


def strings(of: Prompts) -> dict[str, str]:
    return {
        "instance": of.instance(SKS),
        "class in the loss": of.prior(),
        "class generated": of.class_image(),
        "held out": of.held_out(SKS),
        "sampling": of.sampling(SKS),
        "sampling of base": of.sampling(SKS, "base"),
        "negative": of.negative(),
        "negative of base": of.negative(arm="base"),
    }


PLAIN = {
    "instance": SKS,
    "class in the loss": PERSON,
    "class generated": PERSON,
    "held out": SKS,
    "sampling": SKS,
    "sampling of base": SKS,
    "negative": "",
    "negative of base": "",
}
CODE = PLAIN | {
    "instance": "a photo of sks person, bhj noisy pattern",
    "class in the loss": "a photo of a person, without bhj noisy pattern",
    "held out": "a photo of sks person, without bhj noisy pattern",
    "sampling": "a photo of sks person, without bhj noisy pattern",
    "negative": "noisy, lowres, artifact, pattern",
}
PAPER = PLAIN | {
    "instance": "a photo of sks person with bhj noisy pattern",
    "class in the loss": "a photo of a person without bhj noisy pattern",
    "held out": "a photo of sks person without bhj noisy pattern",
    "sampling": "a photo of sks person without bhj noisy pattern",
    "negative": "noisy, abstract, pattern, low quality",
}
PLACEBO = PLAIN | {
    "instance": "a photo of sks person, bhj noisy pattern",
    "class in the loss": "a photo of a person, bhj noisy pattern",
}


def test_nothing_is_added_by_default() -> None:
    assert strings(Prompts(SKS, PERSON)) == PLAIN


@pytest.mark.parametrize(
    ("name", "expected"), [("code", CODE), ("paper", PAPER), ("placebo", PLACEBO)]
)
def test_presets(name: str, expected: dict[str, str]) -> None:
    assert strings(preset(name)) == expected


def test_the_defaults_are_the_code_preset() -> None:
    assert preset("code") == prompts(training=True, sampling=True, negative=True)


@pytest.mark.parametrize(
    ("switch", "changed"),
    [
        ("training", {"instance", "class in the loss"}),
        ("sampling", {"sampling", "held out"}),
        ("negative", {"negative"}),
    ],
)
def test_each_switch_changes_its_own_strings(switch: str, changed: set[str]) -> None:
    got = strings(prompts(**{switch: True}))
    assert {use for use in got if got[use] != PLAIN[use]} == changed
    assert all(got[use] == CODE[use] for use in changed)


def test_the_untouched_model_and_class_images_can_have_them_too() -> None:
    got = strings(preset("code", base_too=True, class_images_too=True))
    assert got["sampling of base"] == got["sampling"]
    assert got["negative of base"] == got["negative"]
    assert got["class generated"] == got["class in the loss"]


def test_other_noise_words() -> None:
    got = strings(preset("paper", noise="<noise>"))
    assert got["instance"] == "a photo of sks person with <noise>"
    assert got["sampling"] == "a photo of sks person without <noise>"


def test_it_stands_after_concepts_and_beside_other_negative_prompts() -> None:
    both = Prompts(SKS, PERSON, "ugly", Decoupling(True, True, True))
    assert both.instance("a man", "QR code<l1>") == "a man, QR code<l1>, bhj noisy pattern"
    assert both.instance("", "") == "bhj noisy pattern"
    assert both.negative("QR code") == "QR code, noisy, lowres, artifact, pattern, ugly"
    fits = lambda text: len(text.split()) <= 5  # noqa: E731
    assert both.fitted("a man in red", "QR code", fits) == "QR code, bhj noisy pattern"


def test_sampled_images_keep_the_text_they_were_asked_for() -> None:
    batches = prompt_batches(
        [SKS], 1, preset("code"), first_seed=0, batch_size=1, arms=("tuned", "base")
    )
    assert [batch.prompts[0] for batch in batches] == [CODE["sampling"], SKS]
    assert [batch.negative_prompts[0] for batch in batches] == [CODE["negative"], ""]
    assert [list(batch.texts) for batch in batches] == [[SKS], [SKS]]


def test_the_contrast_says_of_each_what_it_is_not() -> None:
    of = preset("contrast")
    assert of.contrasted(of.instance(SKS)) == "a photo of sks person, without bhj noisy pattern"
    assert of.contrasted(of.prior()) == "a photo of a person, bhj noisy pattern"
    assert of.contrasted(of.prior(noisy=True)) == "a photo of a person, without bhj noisy pattern"
    assert of.contrasted(of.instance("")) == "without bhj noisy pattern"
    tail = preset("contrast", instance_suffix=" {noise}", class_suffix=" no {noise}")
    assert tail.contrasted(tail.prior()) == "a photo of a person bhj noisy pattern"
    assert tail.contrasted(tail.instance("")) == "no bhj noisy pattern"
    rows = [
        Row(torch.empty(0), torch.empty(0), prompt, is_prior, 0, torch.empty(0))
        for prompt, is_prior in ((of.instance(SKS), False), (of.prior(), True))
    ]
    contrast = collate([rows], of).contrast
    assert contrast is not None
    assert contrast.prompts == [
        "a photo of sks person, without bhj noisy pattern",
        "a photo of a person, bhj noisy pattern",
    ]
    assert (contrast.weight, contrast.margin) == (0.5, 0.01)
    assert collate([rows], preset("code")).contrast is None


def test_a_purifier_fills_in_the_caption() -> None:
    assert purification("{caption}, clear", SKS) == "a photo of sks person, clear"
    assert purification("", SKS) == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": True, "noise": " "}, r"data\.decoupling\.noise is empty"),
        ({"negative": True, "negative_prompt": ""}, r"negative_prompt is empty"),
        ({"contrast": 0.5}, r"contrast needs data\.decoupling\.training"),
        ({"training": True, "contrast": 0.5, "class_suffix": ", {noise}"}, r"nothing to contrast"),
        (
            {"training": True, "contrast": 0.5, "contrast_margin": 0},
            r"contrast_margin is 0",
        ),
    ],
)
def test_empty_words_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoupling(**settings)


@pytest.mark.parametrize(
    "training",
    [
        {"method": "full"},
        {"method": "lora", "train_text_encoder": True},
        {"method": "full", "train_text_encoder": True},
        {"method": "full", "new_tokens": ["<noise>"]},
    ],
    ids=["full", "lora", "text encoder", "learned token"],
)
def test_training_sees_the_contrast(small_sd: Path, tmp_path: Path, training: dict) -> None:
    from shortcut_lightning.modules import DreamBooth

    for folder in ("photos", "class"):
        (tmp_path / folder).mkdir()
        Image.effect_noise((32, 32), 50).convert("RGB").save(tmp_path / folder / "0.png")
    seen: list[TrainBatch] = []

    class Watched(DreamBooth):
        def forward(self, batch: TrainBatch) -> Any:
            seen.append(batch)
            return super().forward(batch)

    module = Watched(str(small_sd), **training)
    learned = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    noise = "<noise>" if "new_tokens" in training else "bhj noisy pattern"
    data = PersonalizationDataModule(
        instance_data_dir=str(tmp_path / "photos"),
        instance_prompt=SKS,
        class_prompt=PERSON,
        class_data_dir=str(tmp_path / "class"),
        with_prior_preservation=True,
        num_class_images=1,
        train_batch_size=1,
        decoupling=Decoupling(True, True, True, noise=noise),
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data)
    assert seen[0].prompts == [f"{SKS}, {noise}", f"{PERSON}, without {noise}"]
    assert seen[0].is_prior.tolist() == [False, True]
    now = dict(module.named_parameters())
    changed = [name for name, before in learned.items() if not torch.equal(before, now[name])]
    assert changed
    assert any("text_encoder" in name for name in changed) == (
        training.get("train_text_encoder", False) or "new_tokens" in training
    )
