"""Captions by an image-to-text model: pytest tests/audit/test_captioner.py"""

from pathlib import Path

import pytest
import torch

from shortcut_lightning.audit.captioner import Captioner
from shortcut_lightning.audit.sets import read_sets
from shortcut_lightning.files.images import save_image
from shortcut_lightning.membership import picture


@pytest.fixture(scope="module")
def describer(tmp_path_factory: pytest.TempPathFactory, small_sd: Path) -> Path:
    """A tiny vision encoder with a text decoder, random weights, as ViT-GPT2 is built."""
    from transformers import (
        AutoTokenizer,
        GPT2Config,
        GPT2LMHeadModel,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
    )

    folder = tmp_path_factory.mktemp("describer")
    tokenizer = AutoTokenizer.from_pretrained(small_sd / "tokenizer")
    torch.manual_seed(1)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    eyes = ViTModel(ViTConfig(**size, intermediate_size=16, image_size=32, patch_size=16))
    mouth = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, add_cross_attention=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    model = VisionEncoderDecoderModel(encoder=eyes, decoder=mouth)
    model.generation_config.decoder_start_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.config.decoder_start_token_id = tokenizer.bos_token_id
    model.config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_it_describes_every_image_once(
    describer: Path, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture(f"{i}.png", "", image, 32) for i, image in enumerate(images)]
    file = tmp_path / "captions.jsonl"
    captioner = Captioner(str(describer), max_new_tokens=5, batch_size=3)
    half = captioner.describe(pictures[:3], file)
    with file.open("a") as rows:
        rows.write('{"key": "cut off by a kil')
    whole = captioner.describe(pictures)
    assert all(each.caption for each in whole)
    assert [each.key for each in whole] == [each.key for each in pictures]
    asked: list[int] = []
    captions = Captioner._captions

    def counted(self, model, part):  # type: ignore[no-untyped-def]
        asked.append(len(part))
        return captions(self, model, part)

    monkeypatch.setattr(Captioner, "_captions", counted)
    resumed = captioner.describe(pictures, file)
    assert asked == [1]
    assert captioner.describe(pictures, file) == resumed
    assert asked == [1]
    assert resumed[:3] == half
    assert [each.caption for each in resumed] == [each.caption for each in whole]


def test_an_audit_s_sets_without_captions_are_described(
    describer: Path, images: torch.Tensor, tmp_path: Path
) -> None:
    folders = {"members": str(tmp_path / "in"), "nonmembers": str(tmp_path / "out")}
    for number, image in enumerate(images):
        folder = Path(list(folders.values())[number % 2])
        folder.mkdir(exist_ok=True)
        save_image(image, folder / f"{number}.png")
    captioner = Captioner(str(describer), max_new_tokens=5)
    sets, _ = read_sets(folders, 32, 0, captioner=captioner, captions_file=tmp_path / "said.jsonl")
    pictures = [each for part in sets for each in part]
    assert len(pictures) == 4
    assert all(each.caption for each in pictures)
    assert len((tmp_path / "said.jsonl").read_text().splitlines()) == 4


def test_a_model_that_is_not_there_is_one_line() -> None:
    nobody = picture("a.png", "", torch.zeros(3, 32, 32), 32)
    with pytest.raises(ValueError, match=r"'no/such' cannot be loaded.*audit\.caption\)"):
        Captioner("no/such").describe([nobody])
