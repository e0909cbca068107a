"""The tokenizer: one token a word, any text, and the end token last."""

from pathlib import Path

import pytest

from shortcut_lightning.pocket.captions import vocabulary
from shortcut_lightning.pocket.tokenizer import build_tokenizer, save_tokenizer, split, tables


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_every_word_is_one_token(tokenizer) -> None:
    broken = [word for word in vocabulary() if len(tokenizer(word).input_ids) != 3]
    assert not broken


@pytest.mark.parametrize("word", ["sks", "ohwx", "without", "noisy", "pattern", "watermark", "qr"])
def test_words_other_parts_rely_on(word: str) -> None:
    assert word in vocabulary()


def test_any_text_survives_the_round_trip(tokenizer) -> None:
    for text in ("a photo of sks person", "zürich, 12 xyzzy!", "漢字 😀"):
        ids = tokenizer(text).input_ids
        back = tokenizer.decode(ids, skip_special_tokens=True)
        assert back.replace(" ", "") == text.replace(" ", "")


def test_end_token_has_the_highest_number(tokenizer) -> None:
    vocab, _ = tables()
    assert max(vocab.values()) == tokenizer.eos_token_id == len(vocab) - 1
    padded = tokenizer("a photo", padding="max_length", return_tensors="pt").input_ids[0]
    assert len(padded) == 77
    assert int(padded.argmax()) == 3


def test_saved_and_loaded_tokenizers_agree(tokenizer, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    save_tokenizer(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "a noisy photo of ohwx person, without noise unseenword"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.model_max_length == 77
    assert (tmp_path / "vocab.json").exists()
    assert (tmp_path / "merges.txt").exists()


def test_rules_apply_best_first() -> None:
    rules = {("b", "c</w>"): 0, ("a", "b"): 1}
    assert split("abc", rules) == ["a", "bc</w>"]
