"""Words for places: what learns, what stays, what is saved.

python -m pytest tests/modules/test_geometry_erasure.py
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from shortcut_lightning.batch import Contrast, PromptBatch, TrainBatch
from shortcut_lightning.data.settings import Passes, Sampled
from shortcut_lightning.modules import DreamBooth, GeometryErasure
from shortcut_lightning.modules.settings import Sampling
from shortcut_lightning.modules.token_positions import sine_cosine


def batch(prompts: list[str], prior: bool = False) -> TrainBatch:
    count = len(prompts)
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return TrainBatch(images, prompts, torch.full((count,), prior), torch.arange(count))


def fit(module: GeometryErasure, folder: Path, prompt: str) -> None:
    data: Any = [batch([prompt] * 2)._replace(draws=torch.tensor([s, s + 1])) for s in (0, 2, 4)]
    trainer = pl.Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(
        module, torch.utils.data.DataLoader(data, batch_size=None, collate_fn=lambda item: item)
    )


def asked(negative: str, arm: str = "tuned") -> PromptBatch:
    return PromptBatch(
        ["a photo of sks dog"], [negative], torch.tensor([3]), torch.tensor([0]), arm
    )


def test_model_removal_learns_words_and_draws_as_before(small_sd: Path, tmp_path: Path) -> None:
    """With nothing in the negative prompt the output is the pretrained model's, bit for bit."""
    module = GeometryErasure(
        "model",
        4,
        pretrained_model_name_or_path=str(small_sd),
        token_lr=0.1,
        sampling=Sampling(num_inference_steps=2),
    )
    assert module.hparams["removal"] == "model"  # for the data to ask
    before = {name: p.detach().clone() for name, p in module.backbone.named_parameters()}
    fit(module, tmp_path, "a photo of sks dog, mark<l0><l5>")
    moved = [n for n, p in module.backbone.named_parameters() if not torch.equal(p, before[n])]
    rows = module.backbone.token_rows[0]
    assert len(moved) == 1
    changed = (rows != before[moved[0]]).any(dim=1).nonzero().flatten().tolist()
    assert changed == [0, 5]
    tuned, base = module.sample(asked("")), module.sample(asked("", "base"))
    assert torch.equal(tuned, base)
    assert not torch.equal(module.sample(asked("mark<l0><l5>")), tuned)


def test_data_removal_learns_unet_and_words(small_sd: Path, tmp_path: Path) -> None:
    for method in ("full", "lora"):
        module = GeometryErasure(
            grid_size=4, method=method, pretrained_model_name_or_path=str(small_sd)
        )
        before = {name: p.detach().clone() for name, p in module.backbone.named_parameters()}
        fit(module, tmp_path, "a photo of sks dog, mark<l0><l5>")
        moved = {
            name.split(".")[0]
            for name, p in module.backbone.named_parameters()
            if not torch.equal(p, before[name])
        }
        assert moved == {"unet", "text_encoder"}


def test_the_step_is_dreambooths(small_sd: Path) -> None:
    """Without its words and weights, the loss is that of DreamBooth; weights change it."""
    plain = batch(["a photo of sks dog", "a photo of dog"])
    expected = DreamBooth(str(small_sd))(plain)["loss"]
    module = GeometryErasure(pretrained_model_name_or_path=str(small_sd))
    assert torch.equal(module(plain)["loss"], expected)
    ones = torch.ones(2, 1, 8, 8)
    torch.testing.assert_close(module(plain._replace(loss_weights=ones))["loss"], expected)
    ones[:, :, :4] = 2.0
    assert module(plain._replace(loss_weights=ones))["loss"] > expected


def test_prompts_are_dropped_by_their_draws(small_sd: Path) -> None:
    module = GeometryErasure(
        pretrained_model_name_or_path=str(small_sd), grid_size=2, prompt_drop=0.25
    )
    many = batch(["a"] * 8)
    long = many._replace(
        prompts=["a dog"] * 400, draws=torch.arange(400), is_prior=torch.zeros(400)
    )
    dropped = module.dropped(long).prompts
    assert dropped.count("") / 400 == pytest.approx(0.25, abs=0.07)
    later = TrainBatch(many.images, ["a dog"] * 200, torch.zeros(200), torch.arange(200, 400))
    assert module.dropped(later).prompts == dropped[200:]
    class_images = long._replace(is_prior=torch.ones(400, dtype=torch.bool))
    assert "" not in module.dropped(class_images).prompts
    contrasted = long._replace(contrast=Contrast(["a cat"] * 400, 1.0, 0.01))
    both = module.dropped(contrasted)
    assert both.contrast is not None
    assert [text == "" for text in both.contrast.prompts] == [text == "" for text in dropped]
    assert set(both.contrast.prompts) == {"", "a cat"}


def test_words_are_saved_for_stock_diffusers(small_sd: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    module = GeometryErasure("model", 2, pretrained_model_name_or_path=str(small_sd))
    module.backbone.save_tokens(tmp_path)
    stock = StableDiffusionPipeline.from_pretrained(small_sd, safety_checker=None)
    for file in sorted(tmp_path.glob("*.safetensors")):
        stock.load_textual_inversion(str(file))
    prompt = "a photo of sks dog, mark<l0><l3>"
    ids = stock.tokenizer(
        prompt, padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    hidden = stock.text_encoder(ids)[0]
    torch.testing.assert_close(hidden, module.backbone.embed([prompt]).hidden)


def test_places_as_sines_have_the_vocabularys_norm(small_sd: Path) -> None:
    options = {"pretrained_model_name_or_path": str(small_sd), "new_tokens": ["<qr>"]}
    plain = GeometryErasure(**options).backbone.token_rows[0]
    sine = GeometryErasure(location_init="sine", **options).backbone.token_rows[0]
    assert torch.equal(plain[0], sine[0])
    torch.testing.assert_close(plain.norm(dim=1), sine.norm(dim=1))
    cosine = torch.nn.functional.cosine_similarity
    # Neighbours are more alike than distant places.
    assert cosine(sine[1], sine[2], 0) > cosine(sine[1], sine[64], 0)


def test_positions_against_their_formula() -> None:
    table = sine_cosine(3, 8)
    assert table.norm(dim=1).tolist() == pytest.approx([2.0] * 9)
    x, y = 2, 1
    row = table[y * 3 + x]
    waves = torch.tensor([1.0, 0.01])
    expected = torch.cat(
        [(x * waves).sin(), (x * waves).cos(), (y * waves).sin(), (y * waves).cos()]
    )
    torch.testing.assert_close(row, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_drop": 1.2}, r"GeometryErasure\.prompt_drop is 1\.2; it must be from 0 to 1"),
        ({"removal": "model", "train_text_encoder": True}, r"model\.train_text_encoder is true"),
        ({"grid_size": 0}, r"GeometryErasure\.grid_size is 0; it must be from 1 to 32"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeometryErasure(**options)


def test_codes_are_found_said_and_learned(small_sd: Path, tmp_path: Path) -> None:
    """The whole way: pasted codes, found, said in captions, a falling loss, saved words."""
    pytest.importorskip("cv2")
    from shortcut_lightning.callbacks import Export
    from shortcut_lightning.concepts import Erasing, QRCodeDetector
    from shortcut_lightning.concepts.generators import QRCode
    from shortcut_lightning.data import PersonalizationDataModule
    from shortcut_lightning.data.implicit_concepts import write_implicit_concepts

    codes = QRCode(edge=(0.45, 0.5), versions=(1, 1), share=0.75)
    write_implicit_concepts(str(tmp_path / "set"), codes, count=8, references=2, resolution=64)
    data = PersonalizationDataModule(
        str(tmp_path / "set/train"),
        "a photo of sks dog",
        use_captions=True,
        reference_data_dir=str(tmp_path / "set/reference"),
        resolution=64,
        training=Passes(random_flip=True),
        detector=QRCodeDetector(),
        erasing=Erasing(caption="geometry", grid_size=4, alpha=5.0, negative="name+all"),
        train_batch_size=4,
        evaluation=Sampled(images_per_prompt=1),
    )
    torch.manual_seed(0)
    module = GeometryErasure(
        grid_size=4,
        pretrained_model_name_or_path=str(small_sd),
        learning_rate=3e-3,
        token_lr=1e-2,
        sampling=Sampling(num_inference_steps=1),
    )
    losses = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, *_: Any) -> None:
            assert batch.loss_weights.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1.0] * 4)
            for prompt, weights in zip(batch.prompts, batch.loss_weights, strict=True):
                assert ("QR code<l" in prompt) == bool(weights.std() > 0)

    trainer = pl.Trainer(
        max_steps=30,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        callbacks=[Losses(), Export(pipeline=False)],
    )
    trainer.fit(module, data)
    assert sum(map(bool, data.boxes)) >= 4
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10]), losses
    assert len(list((tmp_path / "export/tokens").glob("*.safetensors"))) == 16
    tuned, base = data.test_dataloader()
    assert tuned.negative_prompts[0].startswith("QR code<l0><l1>")
    assert base.negative_prompts == [""]
